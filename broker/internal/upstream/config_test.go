package upstream

import (
	"encoding/pem"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// writeCA writes the certificate of a test server and returns the file's name and the server.
func writeCA(t *testing.T) (string, *httptest.Server) {
	t.Helper()
	srv := httptest.NewTLSServer(nil)
	t.Cleanup(srv.Close)
	name := filepath.Join(t.TempDir(), "ca.pem")
	b := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return name, srv
}

func TestReadConfig(t *testing.T) {
	ca, srv := writeCA(t)
	dial := srv.Listener.Addr().String()
	for name, file := range map[string]control.Config{
		"override": {Upstreams: []control.Upstream{{Host: "Example.com.", Dial: dial, CA: ca}}},
		"roots": {
			Upstreams: []control.Upstream{{Host: "example.com", Port: 443, Dial: dial}},
			Egress:    control.ConfigEgress{CA: []string{ca}, AllowPrivate: []string{"10.0.0.0/8", "fd00:1::/32"}},
		},
	} {
		cfg, err := ReadConfig(file)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if len(cfg.AllowPrivate) != len(file.Egress.AllowPrivate) {
			t.Errorf("%s: exemptions %v", name, cfg.AllowPrivate)
		}
		c := newClient(t, cfg)
		x, err := c.Open(t.Context(), PoolKey{Session: "s", Scheme: "https", Authority: protocol.Authority{Host: "example.com", Port: 443}})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		x.Release(false)
		_ = c.Close()
	}
}

func TestReadConfigErrors(t *testing.T) {
	ca, _ := writeCA(t)
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := ReadConfig(control.Config{
		Upstreams: []control.Upstream{
			{Host: "user@example.com"},
			{Host: "a.example", Dial: "127.0.0.1:0"},
			{Host: "b.example", CA: "/nowhere.pem"},
			{Host: "c.example", CA: empty},
			{Host: "d.example", CA: ca},
			{Host: "D.example.", Port: 443},
		},
		Egress: control.ConfigEgress{
			CA:           []string{ca, empty},
			AllowPrivate: []string{"10.0.0.0", "10.1.0.0/8", "10.0.0.0/8", "::ffff:10.0.0.0/104"},
		},
	})
	if err == nil {
		t.Fatal("no error")
	}
	want := []string{
		`upstream 1: host "user@example.com"`,
		`upstream 2: dial: authority "127.0.0.1:0"`,
		`upstream 3: ca: open /nowhere.pem`,
		`upstream 4: ca: "`,
		`upstream 6: d.example:443 has one already`,
		`egress allow_private: netip.ParsePrefix("10.0.0.0")`,
		`prefix "10.1.0.0/8" has bits set behind its length; did you mean 10.0.0.0/8?`,
		`prefix "::ffff:10.0.0.0/104": write IPv4`,
		`egress ca: "`,
	}
	lines := strings.Split(err.Error(), "\n")
	for i := range lines {
		if i < len(want) && strings.HasPrefix(lines[i], want[i]) {
			lines[i] = want[i]
		}
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("errors (-want +got):\n%s", diff)
	}
}

// TestSessionExemption exempts prefixes for one session until it is closed.
func TestSessionExemption(t *testing.T) {
	addr, _ := listen(t)
	c := New(Config{Resolver: &fakeResolver{answers: [][]string{{"127.0.0.1"}}}})
	prefixes, err := ParsePrefixes([]string{"127.0.0.0/8"})
	if err != nil {
		t.Fatal(err)
	}
	c.AllowPrivate("a", prefixes)
	open := func(session string) error {
		x, err := c.Open(t.Context(), PoolKey{Session: session, Scheme: "http", Authority: protocol.Authority{Host: "host.example", Port: addr.Port()}})
		if err == nil {
			x.Release(false)
		}
		return err
	}
	if err := open("a"); err != nil {
		t.Error(err)
	}
	wantReason(t, open("b"), protocol.ReasonForbiddenAddress)
	c.CutSession("a")
	if err := open("a"); err != nil {
		t.Errorf("after a cut: %v", err)
	}
	c.CloseSession("a")
	wantReason(t, open("a"), protocol.ReasonForbiddenAddress)
}

// TestOverrideExemptsOneAuthority points one authority at loopback. The same host on another port, and
// another host that resolves there, are judged as ever.
func TestOverrideExemptsOneAuthority(t *testing.T) {
	s := newServer(t, "http", nil)
	o := s.client.overrides[s.key.Authority]
	c := newClient(t, Config{Overrides: []Override{o}, Resolver: &fakeResolver{answers: [][]string{{"127.0.0.1"}}}})
	x, err := c.Open(t.Context(), s.key)
	if err != nil {
		t.Fatal(err)
	}
	x.Release(false)
	for _, a := range []protocol.Authority{{Host: "example.com", Port: 8080}, {Host: "www.example.com", Port: 80}, {Host: "127.0.0.1", Port: 80}} {
		_, err := c.Open(t.Context(), PoolKey{Session: "s1", Scheme: "http", Authority: a})
		wantReason(t, err, protocol.ReasonForbiddenAddress)
	}
}
