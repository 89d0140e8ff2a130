package front

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"sync"
	"time"

	"torno.internal/protocol"
)

// leafMargin is how long before its end a leaf is replaced.
const leafMargin = time.Hour

// leaves keeps one certificate a name, all for one key that is made with the first and never leaves this
// process. It is safe for concurrent use.
type leaves struct {
	from Leafer

	mu     sync.Mutex
	key    *ecdsa.PrivateKey
	public []byte // PKIX DER
	byName map[string]*leaf
}

// A leaf is one certificate, or the request for it.
type leaf struct {
	ready chan struct{} // closed once the members below are set
	cert  *tls.Certificate
	until time.Time
	err   error
}

func newLeaves(from Leafer) *leaves { return &leaves{from: from, byName: map[string]*leaf{}} }

// get returns a certificate for name. One request a name is under way at a time; one that failed is
// tried again by the next caller.
func (l *leaves) get(ctx context.Context, name string) (*tls.Certificate, error) {
	l.mu.Lock()
	if err := l.makeKey(); err != nil {
		l.mu.Unlock()
		return nil, err
	}
	entry, ok := l.byName[name]
	if ok && entry.stale() {
		ok = false
	}
	if !ok {
		l.forget()
		entry = &leaf{ready: make(chan struct{})}
		l.byName[name] = entry
		go l.fetch(name, entry)
	}
	l.mu.Unlock()
	select {
	case <-entry.ready:
		return entry.cert, entry.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// fetch asks for a leaf. It outlives the handshake that wanted it, since others may wait for the same.
func (l *leaves) fetch(name string, entry *leaf) {
	ctx, cancel := context.WithTimeout(context.Background(), protocol.HeadTimeout)
	defer cancel()
	defer close(entry.ready)
	resp, err := l.from.Leaf(ctx, name, l.public)
	if err != nil {
		entry.err = fmt.Errorf("leaf for %q: %w", name, err)
		return
	}
	entry.cert = &tls.Certificate{Certificate: [][]byte{resp.Certificate}, PrivateKey: l.key}
	entry.until = resp.NotAfter.Add(-leafMargin)
}

// stale reports whether the leaf has failed or ends soon.
func (e *leaf) stale() bool {
	select {
	case <-e.ready:
		return e.err != nil || time.Now().After(e.until)
	default:
		return false
	}
}

// forget makes room when MaxLeaves names are kept: any one may go, it is only fetched again.
func (l *leaves) forget() {
	if len(l.byName) < protocol.MaxLeaves {
		return
	}
	for name, entry := range l.byName {
		select {
		case <-entry.ready:
			delete(l.byName, name)
			return
		default:
		}
	}
}

func (l *leaves) makeKey() error {
	if l.key != nil {
		return nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	if l.public, err = x509.MarshalPKIXPublicKey(&key.PublicKey); err != nil {
		return err
	}
	l.key = key
	return nil
}
