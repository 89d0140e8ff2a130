package broker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"sync"

	"torno.internal/broker/internal/keyring"
	"torno.internal/broker/internal/store"
	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// holders are what may open the key file.
func holders(c control.ConfigKey, passphrase func() (secret.Value, error)) []keyring.Holder {
	var hs []keyring.Holder
	if passphrase != nil {
		hs = append(hs, keyring.Passphrase(passphrase))
	}
	if c.Credential != "" {
		hs = append(hs, keyring.Credential{Name: c.Credential})
	}
	if len(c.Command) > 0 {
		hs = append(hs, keyring.Command{Argv: c.Command})
	}
	return hs
}

// A KeySource says where a key is and what opens it, for what is done without a broker.
type KeySource struct {
	StateDir   string
	Config     control.ConfigKey
	Passphrase func() (secret.Value, error) // as in Config
}

func (k *KeySource) holders() []keyring.Holder { return holders(k.Config, k.Passphrase) }

// ProtectedByPassphrase is what KeyInfo says of a key file that a passphrase opens.
var ProtectedByPassphrase = keyring.KindPassphrase.String()

// KeyProtection says what the key file in a state directory is encrypted under; empty: there is none yet.
func KeyProtection(stateDir string) (string, error) {
	kind, err := keyring.KindOf(filepath.Join(stateDir, keyring.FileName))
	if errors.Is(err, keyring.ErrNoKey) {
		return "", nil
	}
	return kind.String(), err
}

// A rotation is the state of the rotation of the key, for those who ask.
type rotation struct {
	mu   sync.Mutex
	now  *control.KeyRotation
	last error
}

func (r *rotation) set(now *control.KeyRotation, last error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now, r.last = now, last
}

func (r *rotation) running() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now != nil
}

// rotateKeys rotates the key whenever somebody wishes it, until ctx ends. One that was interrupted goes on
// first.
func (b *Broker) rotateKeys(ctx context.Context) {
	if b.store.Rotating() {
		b.log.Info("a rotation of the key that was interrupted goes on")
		b.wishRotation()
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.rotate:
		}
		err := b.store.Rotate(ctx, func(done, total int) {
			b.rotation.set(&control.KeyRotation{Done: done, Total: total}, nil)
		})
		if err != nil && ctx.Err() == nil {
			b.log.Error("rotating the key", "err", err)
		}
		b.rotation.set(nil, err)
		b.touch()
	}
}

// wishRotation has rotateKeys rotate; several wishes are one.
func (b *Broker) wishRotation() {
	b.rotation.set(&control.KeyRotation{}, nil)
	select {
	case b.rotate <- struct{}{}:
	default:
	}
}

func (b *Broker) keyInfo(*http.Request) (control.KeyInfo, error) {
	info := control.KeyInfo{ID: b.store.Public().ID(), Protected: b.store.Protection().String()}
	b.rotation.mu.Lock()
	defer b.rotation.mu.Unlock()
	info.Rotation = b.rotation.now
	if b.rotation.last != nil {
		info.Problem = b.rotation.last.Error()
	}
	return info, nil
}

func (b *Broker) rotateKey(r *http.Request) (control.KeyInfo, error) {
	if !b.rotation.running() {
		b.wishRotation()
	}
	return b.keyInfo(r)
}

// protectKey encrypts the key file under something else.
func (b *Broker) protectKey(_ context.Context, req control.KeyProtection) (control.KeyInfo, error) {
	next, current := secret.New(req.Passphrase), secret.New(req.Current)
	defer next.Wipe()
	defer current.Wipe()
	h, err := b.keyHolder(req.Protect, next)
	if err != nil {
		return control.KeyInfo{}, &control.Error{Code: control.CodeInvalid, Message: err.Error(), Hint: "docs/operating.md says what can protect the key"}
	}
	err = b.store.Protect(h, given(current))
	if errors.Is(err, keyring.ErrWrong) || errors.Is(err, keyring.ErrLocked) {
		return control.KeyInfo{}, &control.Error{Code: control.CodeUntrusted, Message: "that is not the passphrase that protects the key now"}
	}
	if err != nil {
		return control.KeyInfo{}, explain(err)
	}
	return b.keyInfo(nil)
}

// keyHolder returns the holder that a request for protection is about; nil is none.
func (b *Broker) keyHolder(protect string, passphrase secret.Value) (keyring.Holder, error) {
	switch protect {
	case keyring.KindNone.String():
		return nil, nil
	case keyring.KindPassphrase.String():
		return given(passphrase), keyring.CheckPassphrase(passphrase)
	case keyring.KindCredential.String(), keyring.KindCommand.String():
		for _, h := range holders(b.cfg.Operator.Key, nil) {
			if h.Kind().String() == protect {
				return h, nil
			}
		}
		return nil, fmt.Errorf("broker.toml names no %s under [key]", protect)
	}
	return nil, fmt.Errorf("%q is nothing that a key can be protected by", protect)
}

// given is the holder of a passphrase that was given. The caller wipes it.
func given(passphrase secret.Value) keyring.Passphrase {
	return func() (secret.Value, error) { return secret.New(passphrase.AppendTo(nil)), nil }
}

// recordSplit records that the key was split. Who split it had the key file, and its passphrase.
func (b *Broker) recordSplit(_ context.Context, req control.KeySplit) (control.KeyInfo, error) {
	if err := keyring.CheckSplit(req.Shares, req.Threshold); err != nil {
		return control.KeyInfo{}, &control.Error{Code: control.CodeInvalid, Message: err.Error()}
	}
	if err := b.store.Note(store.Change{Event: store.EventSplit, Name: fmt.Sprintf("%d of %d", req.Threshold, req.Shares)}); err != nil {
		return control.KeyInfo{}, err
	}
	return b.keyInfo(nil)
}

// SplitKey splits a key into shares, any threshold of which recover it. A broker may run there; it is told by
// whoever calls this.
func SplitKey(k KeySource, shares, threshold int) ([]secret.Value, error) {
	r, err := keyring.Open(filepath.Join(k.StateDir, keyring.FileName), k.holders()...)
	if err != nil {
		return nil, err
	}
	if len(r.Keys()) > 1 {
		return nil, errors.New("a rotation of the key has not ended: there are two")
	}
	return keyring.Split(r.Keys()[0], shares, threshold)
}

// RecoverKey puts the key of a state directory together from shares and returns its id. No broker may run
// there. A key file that is there is replaced only with force, and never by a key that the store is not sealed
// to.
func RecoverKey(stateDir string, shares []secret.Value, force bool) (id string, err error) {
	k, err := keyring.Recover(shares)
	if err != nil {
		return "", err
	}
	return k.Public().ID(), store.PutKey(stateDir, k, force)
}

// SystemdCredential returns a credential of the service that this process is part of; ok is false if there is
// none of that name.
func SystemdCredential(name string) (s secret.Value, ok bool, err error) {
	return keyring.SystemdCredential(name)
}

// ReadSecret reads a passphrase to the end of r, without a final newline.
func ReadSecret(r io.Reader) (secret.Value, error) { return keyring.ReadSecret(r) }
