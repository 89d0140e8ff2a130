package names

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"torno.internal/guest/internal/capture"
	"torno.internal/guest/internal/nstest"
	"torno.internal/protocol"
)

// serve sets the capture up and answers questions until the test ends.
func serve(t *testing.T) *Table {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	plan, err := capture.NewPlan(protocol.Capture{})
	if err != nil {
		t.Fatal(err)
	}
	if err := capture.Up(); err != nil {
		t.Fatal(err)
	}
	caught, err := capture.Listen(t.Context(), plan, capture.Redirect, log)
	if err != nil {
		t.Fatal(err)
	}
	table, err := New(plan.Names4, plan.Names6)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Listen(t.Context(), table, plan.Addr6.IsValid(), log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { s.Serve(ctx) })
	t.Cleanup(func() { cancel(); caught.Close(); wg.Wait() })
	return table
}

var resolvers = []string{"192.0.2.2", "1.1.1.1", "10.0.0.2", "127.0.0.53", "127.0.0.1", "100.64.0.9", "2001:db8::2", "2606:4700:4700::1111", "::1"}

func TestAnyResolverAnswers(t *testing.T) {
	nstest.Run(t, func(t *testing.T) {
		serve(t)
		for _, network := range []string{"udp", "tcp"} {
			for i, ip := range resolvers {
				resolver := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
					var d net.Dialer
					return d.DialContext(ctx, network, net.JoinHostPort(ip, "53")) // connected: only its answers count
				}}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				addrs, err := resolver.LookupHost(ctx, fmt.Sprintf("host%d.example.", i))
				cancel()
				if err != nil || len(addrs) != 2 {
					t.Errorf("%s %s: %q, %v", network, ip, addrs, err)
				}
			}
		}
	})
}

func TestTCPAnswersInOrderAndEndsOnNonsense(t *testing.T) {
	nstest.Run(t, func(t *testing.T) {
		serve(t)
		c, err := net.Dial("tcp", "9.9.9.9:53")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(time.Minute))
		var both []byte
		for _, name := range []string{"a.example.", "b.example."} {
			q := query(t, name, dnsmessage.TypeA, nil)
			both = append(append(both, byte(len(q)>>8), byte(len(q))), q...)
		}
		c.Write(both)
		buf := make([]byte, 4096)
		got := 0
		for got < 100 {
			n, err := c.Read(buf[got:])
			if err != nil {
				t.Fatalf("after %d bytes: %v", got, err)
			}
			if got += n; got == 2*(2+int(buf[1])) {
				break
			}
		}
		c.Write([]byte{0xff, 0xff, 1})
		if n, err := c.Read(buf); n != 0 || err == nil || os.IsTimeout(err) {
			t.Errorf("over-long query: read %d bytes, %v, want the end", n, err)
		}
	})
}

// Attack 25: DNS over TLS and UDP on other ports reach no resolver, and a lookup changes nothing outside:
// the namespace has no interface but lo.
func TestAttackDNSStaysInside(t *testing.T) {
	nstest.Run(t, func(t *testing.T) {
		table := serve(t)
		interfaces, err := net.Interfaces()
		if err != nil || len(interfaces) != 1 || interfaces[0].Name != "lo" {
			t.Fatalf("interfaces %v, %v, want lo alone", interfaces, err)
		}
		if c, err := net.Dial("udp", "1.1.1.1:853"); !errors.Is(err, syscall.ENETUNREACH) {
			t.Errorf("UDP 853: %v, %v, want no way there", c, err)
		}
		if len(table.names) != 0 {
			t.Errorf("names: %q", table.names)
		}
	})
}
