package front

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"

	"torno.internal/protocol"
)

// leafMargin is how long before its end a leaf is replaced.
const leafMargin = time.Hour

// leafPause is how long a handshake waits when the broker signs no more leaves for the moment.
const leafPause = 100 * time.Millisecond

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
	until time.Time // when to replace it
	err   error
}

func newLeaves(from Leafer) *leaves { return &leaves{from: from, byName: map[string]*leaf{}} }

// get returns a certificate for name. One request a name is under way at a time; one that failed is
// tried again by the next caller. A leaf that can't be replaced in time serves until its end.
func (l *leaves) get(ctx context.Context, name string) (*tls.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, protocol.HeadTimeout)
	defer cancel()
	entry, mine, err := l.entry(name)
	if err != nil {
		return nil, err
	}
	if mine {
		l.fetch(ctx, name, entry)
	}
	select {
	case <-entry.ready:
		return entry.cert, entry.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// entry returns the entry for name, and whether it is new and the caller must fetch it.
func (l *leaves) entry(name string) (entry *leaf, mine bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.makeKey(); err != nil {
		return nil, false, err
	}
	old, ok := l.byName[name]
	if ok && !old.stale() {
		return old, false, nil
	}
	if !ok {
		l.forget()
	}
	entry = &leaf{ready: make(chan struct{})}
	if ok {
		entry.cert = old.cert
	}
	l.byName[name] = entry
	return entry, true, nil
}

// fetch asks for a leaf, waiting while the broker signs none.
func (l *leaves) fetch(ctx context.Context, name string, entry *leaf) {
	defer close(entry.ready)
	for {
		resp, err := l.from.Leaf(ctx, name, l.public)
		if err == nil {
			entry.cert = &tls.Certificate{Certificate: [][]byte{resp.Certificate}, PrivateKey: l.key}
			entry.until = resp.NotAfter.Add(-leafMargin)
			if entry.cert.Leaf, err = x509.ParseCertificate(resp.Certificate); err == nil {
				return
			}
		}
		if entry.cert != nil && entry.cert.Leaf != nil && time.Now().Before(entry.cert.Leaf.NotAfter) {
			return // stale, so that the next caller asks again
		}
		entry.cert, entry.err = nil, fmt.Errorf("leaf for %q: %w", name, err)
		var refused *protocol.RefusedError
		if !errors.As(err, &refused) || refused.Reason != protocol.ReasonRateLimited {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(leafPause):
			entry.err = nil
		}
	}
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
