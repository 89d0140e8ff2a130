// Package front is where the workload's connections end: TLS for any name with leaves that the broker
// signs, HTTP/1.1 and HTTP/2 parsed strictly, and an explicit proxy for tools that insist on one. Each request goes
// to the broker as it came; what the front refuses, it refuses with a real HTTP answer.
package front

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"torno.internal/guest/internal/relay"
	"torno.internal/protocol"
)

// How long a connection may wait for its next request, and from when on it does so with small buffers.
const (
	keepAliveIdle = 5 * time.Minute
	shrinkAfter   = 1 * time.Second
)

// A Leafer gets leaf certificates for one name or address and one P-256 public key in PKIX DER.
type Leafer interface {
	Leaf(ctx context.Context, name string, key []byte) (*protocol.LeafResponse, error)
}

// A Config says where exchanges and leaves come from. All members but Tunnels are needed.
type Config struct {
	Pool   *relay.Pool
	Leaf   Leafer
	NameOf func(netip.Addr) (string, bool) // the name that a synthetic address stands for
	Log    *slog.Logger

	// Tunnels are host:port, or *.host:port, of hosts whose TLS passes through tunnels if the broker lets it. None: all
	// TLS ends here.
	Tunnels []string
}

// A Front serves captured connections. It is safe for concurrent use.
type Front struct {
	Config
	tls     *tls.Config
	passing passing
}

// New returns a Front.
func New(c Config) *Front {
	f := &Front{Config: c, passing: newPassing(c.Tunnels)}
	leaves := newLeaves(c.Leaf)
	f.tls = &tls.Config{
		MinVersion:       tls.VersionTLS12,
		CurvePreferences: []tls.CurveID{tls.X25519, tls.CurveP256}, // nobody records loopback
		// The first that the client offers too is spoken: HTTP/2, which costs more, with those alone that
		// offer nothing else.
		NextProtos:         []string{"http/1.1", "http/1.0", "h2", protoPostgres},
		GetConfigForClient: f.passes,
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
		c := newConn(f, nc)
		c.dialled = addrPort(nc.LocalAddr())
		c.dialledText, c.port = c.dialled.String(), c.dialled.Port()
		return c
	})
}

// ServeProxy serves clients that were told to use a proxy.
func (f *Front) ServeProxy(ctx context.Context, ln net.Listener) error {
	return f.serve(ctx, ln, func(nc net.Conn) *conn {
		c := newConn(f, nc)
		c.proxy = true
		return c
	})
}

func addrPort(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := tcp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
