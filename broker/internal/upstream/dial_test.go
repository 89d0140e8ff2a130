package upstream

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"torno.internal/protocol"
)

// A fakeResolver answers from a list, one entry a call, the last one for ever.
type fakeResolver struct {
	mu      sync.Mutex
	asked   []string
	answers [][]string
	err     error
}

func (r *fakeResolver) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = append(r.asked, host)
	if r.err != nil {
		return nil, r.err
	}
	var addrs []netip.Addr
	for _, s := range r.answers[min(len(r.asked), len(r.answers))-1] {
		addrs = append(addrs, netip.MustParseAddr(s))
	}
	return addrs, nil
}

// wantReason fails the test unless err is a refusal for reason.
func wantReason(t *testing.T, err error, reason protocol.Reason) {
	t.Helper()
	var refused *protocol.RefusedError
	if !errors.As(err, &refused) {
		t.Fatalf("error %v, want a refusal for %v", err, reason)
	}
	if refused.Reason != reason {
		t.Fatalf("refused for %v (%v), want %v", refused.Reason, err, reason)
	}
}

// listen accepts TCP connections on loopback and reports each.
func listen(t *testing.T) (netip.AddrPort, <-chan netip.AddrPort) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan netip.AddrPort, 64)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			accepted <- netip.MustParseAddrPort(c.RemoteAddr().String())
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = ln.Close(); <-done })
	return netip.MustParseAddrPort(ln.Addr().String()), accepted
}

// TestAttack23ForbiddenAnswers resolves names to addresses that are not the public internet's. None
// may be connected to, though a server waits on loopback.
func TestAttack23ForbiddenAnswers(t *testing.T) {
	addr, accepted := listen(t)
	for _, tt := range []struct {
		name    string
		answers []string
	}{
		{"loopback", []string{"127.0.0.1"}},
		{"loopback6", []string{"::1"}},
		{"unspecified", []string{"0.0.0.0"}},
		{"unspecified6", []string{"::"}},
		{"mapped", []string{"::ffff:127.0.0.1"}},
		{"private", []string{"192.168.1.1"}},
		{"metadata", []string{"169.254.169.254"}},
		{"cgnat", []string{"100.64.0.1"}},
		{"ula", []string{"fd00::1"}},
		{"link-local", []string{"fe80::1"}},
		{"multicast", []string{"224.0.0.1"}},
		{"6to4", []string{"2002:7f00:1::1"}},
		{"teredo", []string{"2001::1"}},
		{"nat64", []string{"64:ff9b::7f00:1"}},
		{"good among bad", []string{"127.0.0.1", "8.8.8.8"}},
		{"bad among good", []string{"8.8.8.8", "1.1.1.1", "2606:4700::1111", "127.0.0.1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newClient(t, Config{Resolver: &fakeResolver{answers: [][]string{tt.answers}}})
			for _, scheme := range []string{"https", "http"} {
				_, err := c.Open(t.Context(), PoolKey{Session: "s", Scheme: scheme, Authority: protocol.Authority{Host: "evil.example", Port: addr.Port()}})
				wantReason(t, err, protocol.ReasonForbiddenAddress)
			}
			_, err := c.Tunnel(t.Context(), PoolKey{Session: "s", Authority: protocol.Authority{Host: "evil.example", Port: addr.Port()}})
			wantReason(t, err, protocol.ReasonForbiddenAddress)
		})
	}
	select {
	case from := <-accepted:
		t.Errorf("%v reached the listener", from)
	default:
	}
}

// TestAttack23Literals asks for addresses by themselves.
func TestAttack23Literals(t *testing.T) {
	c := newClient(t, Config{Resolver: &fakeResolver{err: errors.New("a literal was resolved")}})
	for _, literal := range []string{"127.0.0.1", "[::1]", "169.254.169.254", "[::ffff:10.0.0.1]", "[64:ff9b::127.0.0.1]", "[fd00:ec2::254]"} {
		a, err := protocol.ParseAuthority(literal, 443)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Open(t.Context(), PoolKey{Session: "s", Scheme: "https", Authority: a})
		wantReason(t, err, protocol.ReasonForbiddenAddress)
	}
}

// TestAttack23Rebinding changes the answer after the first look. One connection asks once and goes to
// what was judged; the next is judged anew.
func TestAttack23Rebinding(t *testing.T) {
	addr, accepted := listen(t)
	r := &fakeResolver{answers: [][]string{{"127.0.0.1"}, {"127.0.0.2"}}}
	d := dialer{resolver: r, guard: guard{allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}}}
	a := protocol.Authority{Host: "rebind.example", Port: addr.Port()}
	nc, err := d.dial(t.Context(), a, nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = nc.Close()
	<-accepted
	if diff := cmp.Diff([]string{"rebind.example."}, r.asked); diff != "" {
		t.Errorf("names asked for (-want +got):\n%s", diff)
	}
	_, err = d.dial(t.Context(), a, nil)
	wantReason(t, err, protocol.ReasonForbiddenAddress)
}

// TestAttack23LastLook hands the dialer an address that was never judged: the control hook stops it.
func TestAttack23LastLook(t *testing.T) {
	addr, _ := listen(t)
	d := dialer{resolver: &fakeResolver{answers: [][]string{{"8.8.8.8"}}}}
	_, err := connectAny(t.Context(), addr.Port(), []netip.Addr{addr.Addr()}, d.guard.lastLook)
	wantReason(t, err, protocol.ReasonForbiddenAddress)
}

func TestDialReasons(t *testing.T) {
	closed, _ := func() (netip.AddrPort, error) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = ln.Close() }()
		return netip.MustParseAddrPort(ln.Addr().String()), nil
	}()
	loopback := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	many := slices.Repeat([]string{"8.8.8.8"}, maxAnswers+1)
	for _, tt := range []struct {
		name     string
		resolver *fakeResolver
		allow    []netip.Prefix
		want     protocol.Reason
	}{
		{"no such name", &fakeResolver{err: &net.DNSError{Err: "no such host", IsNotFound: true}}, nil, protocol.ReasonUnknownName},
		{"no address", &fakeResolver{answers: [][]string{{}}}, nil, protocol.ReasonUnknownName},
		{"too many", &fakeResolver{answers: [][]string{many}}, nil, protocol.ReasonUnknownName},
		{"nobody listens", &fakeResolver{answers: [][]string{{"127.0.0.1"}}}, loopback, protocol.ReasonConnect},
		{"nobody listens anywhere", &fakeResolver{answers: [][]string{{"127.0.0.1", "127.0.0.2", "127.0.0.3"}}}, loopback, protocol.ReasonConnect},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := dialer{resolver: tt.resolver}
			_, err := d.dial(t.Context(), protocol.Authority{Host: "host.example", Port: closed.Port()}, tt.allow)
			wantReason(t, err, tt.want)
		})
	}
}

func TestDialFallsBack(t *testing.T) {
	addr, accepted := listen(t) // on 127.0.0.1 alone
	r := &fakeResolver{answers: [][]string{{"127.0.0.9", "127.0.0.8", "127.0.0.1", "127.0.0.7"}}}
	d := dialer{resolver: r, guard: guard{allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}}
	start := time.Now()
	nc, err := d.dial(t.Context(), protocol.Authority{Host: "host.example", Port: addr.Port()}, nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = nc.Close()
	<-accepted
	if took := time.Since(start); took > fallbackDelay {
		t.Errorf("took %v: refused connections should hand over at once", took)
	}
}

func TestRaceStaggers(t *testing.T) {
	addr, _ := listen(t)
	silent, good := netip.MustParseAddr("127.0.0.9"), addr.Addr()
	var ended sync.WaitGroup
	ended.Add(1)
	nc, err := race(t.Context(), []netip.Addr{silent, good}, func(ctx context.Context, a netip.Addr) (*net.TCPConn, error) {
		if a == silent {
			defer ended.Done()
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(addr))
	})
	if err != nil {
		t.Fatal(err)
	}
	_ = nc.Close()
	ended.Wait()
}

func TestAlternate(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"1.1.1.1", "1.1.1.1"},
		{"2606::1 2606::2 1.1.1.1 1.1.1.2", "2606::1 1.1.1.1 2606::2 1.1.1.2"},
		{"1.1.1.1 2606::1 2606::2 2606::3", "1.1.1.1 2606::1 2606::2 2606::3"},
		{"1.1.1.1 1.1.1.2 1.1.1.3 2606::1", "1.1.1.1 2606::1 1.1.1.2 1.1.1.3"},
	} {
		var in []netip.Addr
		for s := range strings.FieldsSeq(tt.in) {
			in = append(in, netip.MustParseAddr(s))
		}
		var got []string
		for _, a := range alternate(in) {
			got = append(got, a.String())
		}
		if diff := cmp.Diff(tt.want, strings.Join(got, " ")); diff != "" {
			t.Errorf("alternate(%s) (-want +got):\n%s", tt.in, diff)
		}
	}
}
