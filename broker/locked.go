package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"torno.internal/broker/internal/audit"
	ctlserver "torno.internal/broker/internal/control"
	"torno.internal/broker/internal/keyring"
	"torno.internal/protocol"
	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// The events of a broker that waited for its passphrase. It records them once the key that signs the audit is open.
const (
	eventUnlocked      = "key_unlocked"
	eventUnlockRefused = "key_unlock_refused"
)

// Bounds on guessing: a wrong passphrase closes the door for a second, and each further one for twice as long.
const (
	firstPause = time.Second
	mostPause  = time.Minute
	maxRefused = 64 // that are recorded, by who asked
)

// A Locked is a broker whose key a passphrase protects that nobody has given yet. It answers on the control socket, says that
// it is locked, and refuses everything but the passphrase. Its methods are safe for concurrent use.
type Locked struct {
	cfg     Config
	started time.Time
	opened  chan secret.Value // holds the passphrase, once

	trying sync.Mutex // held while one is tried

	mu      sync.Mutex
	until   time.Time // when the next one may be tried
	wrong   int
	refused []string // who asked, of those that were wrong
	by      string   // who gave the right one
}

// NewLocked returns the locked broker of a configuration. Serve opens nothing but the control socket.
func NewLocked(cfg Config) *Locked {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Locked{cfg: cfg, started: time.Now(), opened: make(chan secret.Value, 1)}
}

// Status says that it is locked, for people.
func (l *Locked) Status() string { return "locked: " + unlockHint }

const unlockHint = "torno key unlock"

// Reload implements what a service manager asks of a broker.
func (l *Locked) Reload(string) (control.Reloaded, error) { return control.Reloaded{}, errLocked() }

func errLocked() error {
	return &control.Error{Code: control.CodeLocked, Message: "the broker is locked: a passphrase protects its key", Hint: unlockHint}
}

// Serve answers until somebody gives the passphrase, and returns the configuration that the broker opens with: it has the
// passphrase, and the socket, on which those who ask meanwhile wait.
func (l *Locked) Serve(ctx context.Context) (Config, error) {
	ln, err := l.listen()
	if err != nil {
		return Config{}, fmt.Errorf("control socket: %w", err)
	}
	lease := &ctlserver.Lease{Listener: ctlserver.Adopt(ln), Deadline: ln.SetDeadline}
	srv := &http.Server{Handler: l.router(), ReadHeaderTimeout: 10 * time.Second, ConnContext: ctlserver.WithConn}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(lease) }()
	l.cfg.Log.Info("locked: a passphrase protects the key", "control", ln.Addr().String(), "hint", unlockHint)
	if l.cfg.Ready != nil {
		l.cfg.Ready()
	}
	var passphrase secret.Value
	select {
	case <-ctx.Done():
		err = ctx.Err()
	case err = <-served:
		return Config{}, errors.Join(err, ln.Close())
	case passphrase = <-l.opened:
	}
	stop, stopped := context.WithTimeout(context.Background(), 2*time.Second)
	defer stopped()
	_ = srv.Shutdown(stop) // those who are answered are few
	<-served
	if err = errors.Join(err, lease.Return()); err != nil {
		passphrase.Wipe()
		return Config{}, errors.Join(err, ln.Close())
	}
	cfg := l.cfg
	cfg.Listener, cfg.unlocked = ln, l
	cfg.Passphrase = func() (secret.Value, error) { return passphrase, nil }
	return cfg, nil
}

func (l *Locked) listen() (*net.UnixListener, error) {
	ln := l.cfg.Listener
	if ln == nil {
		var err error
		if ln, err = ctlserver.ListenBare(filepath.Join(l.cfg.RuntimeDir, control.SocketName)); err != nil {
			return nil, err
		}
	}
	u, ok := ln.(*net.UnixListener)
	if !ok {
		return nil, errors.Join(fmt.Errorf("%s is no Unix socket", ln.Addr()), ln.Close())
	}
	return u, nil
}

func (l *Locked) router() http.Handler {
	log, mux := l.cfg.Log, http.NewServeMux()
	mux.Handle("GET "+control.PathHealth, ctlserver.Get(log, l.health))
	mux.Handle("GET "+control.PathKey, ctlserver.Get(log, l.keyInfo))
	mux.Handle("POST "+control.PathUnlock, ctlserver.Handle(log, l.unlock))
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { ctlserver.WriteError(w, log, errLocked()) })
	return mux
}

func (l *Locked) health(*http.Request) (control.Health, error) {
	return control.Health{Version: l.cfg.Version, Protocol: protocol.Version, PID: os.Getpid(), Started: l.started,
		StateDir: l.cfg.StateDir, Locked: true}, nil
}

func (l *Locked) keyInfo(*http.Request) (control.KeyInfo, error) {
	return control.KeyInfo{Protected: ProtectedByPassphrase, Locked: true}, nil
}

// unlock tries a passphrase. One at a time is tried, and after a wrong one none for a while.
func (l *Locked) unlock(ctx context.Context, req control.KeyUnlock) (control.KeyInfo, error) {
	passphrase := secret.New(req.Passphrase)
	if !l.trying.TryLock() {
		passphrase.Wipe()
		return control.KeyInfo{}, &control.Error{Code: control.CodeBusy, Message: "another passphrase is being tried"}
	}
	defer l.trying.Unlock()
	if err := l.mayTry(); err != nil {
		passphrase.Wipe()
		return control.KeyInfo{}, err
	}
	_, err := keyring.Open(filepath.Join(l.cfg.StateDir, keyring.FileName), given(passphrase))
	if err != nil {
		passphrase.Wipe()
		if errors.Is(err, keyring.ErrWrong) {
			return control.KeyInfo{}, l.refuse(caller(ctx))
		}
		return control.KeyInfo{}, err
	}
	l.mu.Lock()
	l.by = caller(ctx)
	l.mu.Unlock()
	select {
	case l.opened <- passphrase:
	default: // somebody was first
		passphrase.Wipe()
	}
	return control.KeyInfo{Protected: ProtectedByPassphrase}, nil
}

// unlock answers for a broker that is not locked.
func (b *Broker) unlock(_ context.Context, req control.KeyUnlock) (control.KeyInfo, error) {
	clear(req.Passphrase)
	return control.KeyInfo{}, &control.Error{Code: control.CodeConflict, Message: "the broker is not locked"}
}

// mayTry refuses what comes too soon after a wrong one.
func (l *Locked) mayTry() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if wait := time.Until(l.until); wait > 0 {
		return &control.Error{Code: control.CodeBusy, Message: fmt.Sprintf("after %d wrong ones a passphrase is tried again in %v", l.wrong, wait.Round(time.Second/10))}
	}
	return nil
}

// refuse counts a wrong passphrase and says so.
func (l *Locked) refuse(by string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	pause := mostPause
	if l.wrong < 6 {
		pause = firstPause << l.wrong
	}
	l.wrong, l.until = l.wrong+1, time.Now().Add(pause)
	if len(l.refused) < maxRefused {
		l.refused = append(l.refused, by)
	}
	l.cfg.Log.Warn("a wrong passphrase", "by", by, "wrong", l.wrong)
	return &control.Error{Code: control.CodeUntrusted, Message: "that is not the passphrase that protects the key"}
}

// record records what happened while the broker was locked; nil: it was not.
func (l *Locked) record(b *Broker) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, by := range l.refused {
		b.recordOwn(&audit.Record{Event: eventUnlockRefused, By: by})
	}
	b.recordOwn(&audit.Record{Event: eventUnlocked, By: l.by})
}
