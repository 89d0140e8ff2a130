// Package front is where the workload's connections end: TLS for any name with leaves that the broker
// signs, HTTP/1.1 parsed strictly, and an explicit proxy for tools that insist on one. Each request goes
// to the broker as it came; what the front refuses, it refuses with a real HTTP answer.
package front

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"torno.internal/guest/internal/relay"
	"torno.internal/protocol"
)

// Limits on the workload's side.
const (
	maxConns      = 4096            // connections at once; more wait to be accepted
	keepAliveIdle = 5 * time.Minute // between two requests
	lingerTimeout = 2 * time.Second // for a client to read a refusal before the connection closes
)

// A Leafer gets leaf certificates for one name or address and one P-256 public key in PKIX DER.
type Leafer interface {
	Leaf(ctx context.Context, name string, key []byte) (*protocol.LeafResponse, error)
}

// A Config says where exchanges and leaves come from. All members are needed.
type Config struct {
	Pool   *relay.Pool
	Leaf   Leafer
	NameOf func(netip.Addr) (string, bool) // the name that a synthetic address stands for
	Log    *slog.Logger
}

// A Front serves captured connections. It is safe for concurrent use.
type Front struct {
	Config
	tls   *tls.Config
	slots chan struct{}
}

// New returns a Front.
func New(c Config) *Front {
	f := &Front{Config: c, slots: make(chan struct{}, maxConns)}
	leaves := newLeaves(c.Leaf)
	f.tls = &tls.Config{
		MinVersion:       tls.VersionTLS12,
		CurvePreferences: []tls.CurveID{tls.X25519, tls.CurveP256}, // nobody records loopback
		NextProtos:       []string{"http/1.1"},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			name, err := f.certificateName(hello)
			if err != nil {
				return nil, err
			}
			return leaves.get(hello.Context(), name)
		},
	}
	return f
}

// Serve serves connections whose LocalAddr is what the client dialled, until ctx ends or the listener
// fails. It returns once all of them have ended.
func (f *Front) Serve(ctx context.Context, ln net.Listener) error {
	return f.serve(ctx, ln, func(nc net.Conn) *conn {
		return &conn{front: f, dialled: addrPort(nc.LocalAddr())}
	})
}

// ServeProxy serves clients that were told to use a proxy.
func (f *Front) ServeProxy(ctx context.Context, ln net.Listener) error {
	return f.serve(ctx, ln, func(net.Conn) *conn { return &conn{front: f, proxy: true} })
}

func (f *Front) serve(ctx context.Context, ln net.Listener, prepare func(net.Conn) *conn) error {
	ctx, cancel := context.WithCancel(ctx)
	var conns sync.WaitGroup
	defer conns.Wait()
	defer cancel()
	defer context.AfterFunc(ctx, func() { ln.Close() })()
	for {
		select {
		case f.slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		nc, err := ln.Accept()
		if err != nil {
			<-f.slots
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return err
		}
		conns.Go(func() {
			defer func() { <-f.slots }()
			defer nc.Close()
			defer context.AfterFunc(ctx, func() { nc.Close() })()
			prepare(nc).serve(ctx, nc)
		})
	}
}

func addrPort(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := tcp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
