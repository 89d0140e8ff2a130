package session

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"torno.internal/protocol"
)

func reasonOf(err error) protocol.Reason {
	var refused *protocol.RefusedError
	if errors.As(err, &refused) {
		return refused.Reason
	}
	return protocol.ReasonNone
}

func publicDER(t testing.TB, public any) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// newLeafKey returns a key pair as a guest makes it.
func newLeafKey(t testing.TB) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key, publicDER(t, key.Public())
}

func leafKey(t testing.TB) []byte {
	_, der := newLeafKey(t)
	return der
}

func roots(t testing.TB, s *Session) *x509.CertPool {
	t.Helper()
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(s.CAPEM()) {
		t.Fatal("the CA is not PEM")
	}
	return pool
}

func TestCA(t *testing.T) {
	s := newTestSession(t, newMemory())
	ca, err := x509.ParseCertificate(s.ca.der)
	if err != nil {
		t.Fatal(err)
	}
	if !ca.IsCA || !ca.BasicConstraintsValid || ca.MaxPathLen != 0 || !ca.MaxPathLenZero {
		t.Errorf("CA %v, path length %d", ca.IsCA, ca.MaxPathLen)
	}
	if ca.KeyUsage != x509.KeyUsageCertSign || !cmp.Equal(ca.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}) || len(ca.UnknownExtKeyUsage) > 0 {
		t.Errorf("usage %v, %v", ca.KeyUsage, ca.ExtKeyUsage)
	}
	if got := ca.NotAfter.Sub(s.Created()); (got - protocol.SessionLifetime).Abs() > time.Second {
		t.Errorf("it lives %v, want %v", got, protocol.SessionLifetime)
	}
	if len(ca.SubjectKeyId) == 0 || ca.PermittedDNSDomains != nil {
		t.Error("it lacks its key id or has name constraints")
	}
}

func TestIssueLeaf(t *testing.T) {
	s := newTestSession(t, newMemory())
	tests := []struct{ in, dns, ip string }{
		{"api.anthropic.com", "api.anthropic.com", ""},
		{"API.Example.ORG.", "api.example.org", ""},
		{"localhost", "localhost", ""},
		{"xn--bcher-kva.example", "xn--bcher-kva.example", ""},
		{strings.Repeat("a", 63) + ".example", strings.Repeat("a", 63) + ".example", ""},
		{"192.0.2.1", "", "192.0.2.1"},
		{"2001:DB8::1", "", "2001:db8::1"},
		{"::ffff:192.0.2.1", "", "192.0.2.1"},
	}
	for _, tt := range tests {
		key, der := newLeafKey(t)
		before := time.Now()
		cert, notAfter, err := s.IssueLeaf(tt.in, der)
		if err != nil {
			t.Errorf("%s: %v", tt.in, err)
			continue
		}
		leaf, err := x509.ParseCertificate(cert)
		if err != nil {
			t.Fatal(err)
		}
		var ips []string
		for _, ip := range leaf.IPAddresses {
			ips = append(ips, ip.String())
		}
		if got := strings.Join(leaf.DNSNames, ",") + "|" + strings.Join(ips, ","); got != tt.dns+"|"+tt.ip {
			t.Errorf("%s: names %s", tt.in, got)
		}
		if len(leaf.EmailAddresses)+len(leaf.URIs) > 0 || leaf.Subject.CommonName != "" || leaf.IsCA {
			t.Errorf("%s: more than one name, or a CA: %+v", tt.in, leaf.Subject)
		}
		if leaf.KeyUsage != x509.KeyUsageDigitalSignature || !cmp.Equal(leaf.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}) {
			t.Errorf("%s: usage %v, %v", tt.in, leaf.KeyUsage, leaf.ExtKeyUsage)
		}
		if !leaf.NotAfter.Equal(notAfter) || before.Add(protocol.LeafLifetime).Sub(notAfter).Abs() > 2*time.Second ||
			before.Add(-protocol.LeafBackdate).Sub(leaf.NotBefore).Abs() > 2*time.Second {
			t.Errorf("%s: from %v to %v", tt.in, leaf.NotBefore, leaf.NotAfter)
		}
		if !key.PublicKey.Equal(leaf.PublicKey) {
			t.Errorf("%s: another key", tt.in)
		}
		host := tt.dns
		if tt.ip != "" {
			host = "[" + tt.ip + "]"
		}
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots(t, s), DNSName: host}); err != nil {
			t.Errorf("%s: %v", tt.in, err)
		}
		other := newTestSession(t, newMemory())
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots(t, other), DNSName: host}); err == nil {
			t.Errorf("%s: the CA of another session vouches for it", tt.in)
		}
	}
}

// TestLeafServes holds that a TLS client which trusts the CA accepts the leaf.
func TestLeafServes(t *testing.T) {
	s := newTestSession(t, newMemory())
	key, der := newLeafKey(t)
	cert, _, err := s.IssueLeaf("api.example.org", der)
	if err != nil {
		t.Fatal(err)
	}
	client, server := net.Pipe()
	defer client.Close()
	defer server.Close()
	go func() {
		c := tls.Server(server, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert}, PrivateKey: key}}})
		_, _ = io.WriteString(c, "x")
	}()
	c := tls.Client(client, &tls.Config{RootCAs: roots(t, s), ServerName: "api.example.org"})
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Error(err)
	}
}

func TestIssueLeafRefuses(t *testing.T) {
	s := newTestSession(t, newMemory())
	good := leafKey(t)
	for _, name := range []string{
		"", ".", "*.example.org", "*", "a.example,b.example", "a.example b.example", "a.example\x00.evil.example",
		"bücher.example", "a..example", "example.org:443", "[::1]", "fe80::1%eth0", "0x7f.1", "2130706433", "127.1",
		"user@example.org", "https://example.org", strings.Repeat("a.", 200) + "a", strings.Repeat("a", 64) + ".example",
	} {
		if der, _, err := s.IssueLeaf(name, good); reasonOf(err) != protocol.ReasonBadAuthority || der != nil {
			t.Errorf("name %q: %v", name, err)
		}
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	edKey, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	off := append([]byte(nil), good...)
	off[len(off)-1] ^= 1 // a point that is not on the curve
	keys := map[string][]byte{
		"empty": nil, "zeros": make([]byte, leafKeySize), "P-384": publicDER(t, p384.Public()), "RSA": publicDER(t, rsaKey.Public()),
		"Ed25519": publicDER(t, edKey), "cut": good[:len(good)-1], "followed": append(append([]byte(nil), good...), 0),
		"off the curve": off, "huge": make([]byte, 1<<20),
	}
	for name, key := range keys {
		if der, _, err := s.IssueLeaf("example.org", key); reasonOf(err) != protocol.ReasonBadRequest || der != nil {
			t.Errorf("key %s: %v", name, err)
		}
	}
	if s.issued != 0 {
		t.Errorf("%d refused leaves are counted", s.issued)
	}
}

func TestLeafRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTestSession(t, newMemory())
		key := leafKey(t)
		issue := func(n int) (issued int) {
			for range n {
				_, _, err := s.IssueLeaf("example.org", key)
				switch {
				case err == nil:
					issued++
				case reasonOf(err) != protocol.ReasonRateLimited:
					t.Fatal(err)
				}
			}
			return issued
		}
		for _, step := range []struct {
			wait        time.Duration
			tried, want int
		}{
			{0, 100, leafBurst},
			{time.Second, 100, protocol.LeafRate},
			{time.Second / protocol.LeafRate, 2, 1},
			{time.Hour, 100, leafBurst},
		} {
			time.Sleep(step.wait)
			if got := issue(step.tried); got != step.want {
				t.Errorf("after %v: %d of %d issued, want %d", step.wait, got, step.tried, step.want)
			}
		}
	})
}

// TestLeafLimit holds that a restart gives no new leaves, and takes at most one reserve away.
func TestLeafLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		s := newTestSession(t, m)
		for i := range protocol.MaxLeaves - 1 {
			if i == leafReserve {
				s = reload(t, m, s)
			}
			if i%1000 == 0 {
				s = reload(t, m, s)
			}
			time.Sleep(time.Second / protocol.LeafRate)
			if _, err := s.takeLeaf(time.Now()); err != nil {
				if i < protocol.MaxLeaves-5*leafReserve || reasonOf(err) != protocol.ReasonRateLimited {
					t.Fatalf("leaf %d: %v", i, err)
				}
				break
			}
		}
		for range 2 * leafReserve {
			time.Sleep(time.Second)
			_, _ = s.takeLeaf(time.Now())
		}
		for _, s := range []*Session{s, reload(t, m, s)} {
			time.Sleep(time.Hour)
			if _, _, err := s.IssueLeaf("example.org", leafKey(t)); reasonOf(err) != protocol.ReasonRateLimited {
				t.Errorf("after %d leaves: %v", s.issued, err)
			}
		}
		if m.puts > 5+protocol.MaxLeaves/leafReserve {
			t.Errorf("%d commits for %d leaves", m.puts, protocol.MaxLeaves)
		}
	})
}

func TestLeafEndsWithCA(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTestSession(t, newMemory())
		time.Sleep(protocol.SessionLifetime - time.Hour)
		_, notAfter, err := s.IssueLeaf("example.org", leafKey(t))
		if err != nil || notAfter.After(s.ca.notAfter) {
			t.Errorf("leaf until %v (%v), CA until %v", notAfter, err, s.ca.notAfter)
		}
	})
}

func TestConcurrentLeaves(t *testing.T) {
	s := newTestSession(t, newMemory())
	key := leafKey(t)
	var wg sync.WaitGroup
	serials := make(chan string, leafBurst)
	for range leafBurst {
		wg.Go(func() {
			der, _, err := s.IssueLeaf("example.org", key)
			if err != nil {
				t.Error(err)
				return
			}
			cert, err := x509.ParseCertificate(der)
			if err != nil {
				t.Error(err)
				return
			}
			serials <- cert.SerialNumber.String()
		})
	}
	wg.Wait()
	close(serials)
	seen := map[string]bool{}
	for serial := range serials {
		if seen[serial] {
			t.Errorf("serial number %s twice", serial)
		}
		seen[serial] = true
	}
}

func FuzzIssueLeaf(f *testing.F) {
	good := leafKey(f)
	for _, name := range []string{"example.org", "192.0.2.1", "2001:db8::1", "*.example.org", "a\x00b", "", "0x7f.1", "EXAMPLE.org."} {
		f.Add(name, good)
	}
	f.Add("example.org", []byte{})
	f.Fuzz(func(t *testing.T, name string, key []byte) {
		s := &Session{} // no CA: only the inputs are judged
		host, hostErr := protocol.ParseHost(name)
		public, keyErr := parseLeafKey(key)
		if hostErr != nil || keyErr != nil {
			if _, _, err := s.IssueLeaf(name, key); err == nil {
				t.Fatalf("%q is issued", name)
			}
			return
		}
		ca, caKey, err := newCA("x", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.CreateCertificate(rand.Reader, leafTemplate(host, time.Now(), ca.NotAfter), ca, public, caKey)
		if err != nil {
			t.Fatalf("%q: %v", name, err)
		}
		leaf, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatalf("%q: %v", name, err)
		}
		if len(leaf.DNSNames)+len(leaf.IPAddresses) != 1 || len(leaf.EmailAddresses)+len(leaf.URIs) != 0 || leaf.IsCA {
			t.Fatalf("%q: names %q %v", name, leaf.DNSNames, leaf.IPAddresses)
		}
		if len(leaf.DNSNames) == 1 && leaf.DNSNames[0] != host {
			t.Fatalf("%q: name %q", name, leaf.DNSNames)
		}
	})
}

func FuzzDecodeRecord(f *testing.F) {
	m := newMemory()
	s := newTestSession(f, m)
	f.Add(m.kept[s.ID()])
	if _, err := s.Hello(nonce(1)); err != nil {
		f.Fatal(err)
	}
	f.Add(m.kept[s.ID()])
	if err := s.End(); err != nil {
		f.Fatal(err)
	}
	f.Add(m.kept[s.ID()])
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRecord(s.ID(), b)
		if err != nil {
			if !cmp.Equal(r, record{}, cmp.AllowUnexported(record{})) {
				t.Fatalf("a record beside %v", err)
			}
			return
		}
		again := newMemory()
		if err := r.put(again); err != nil {
			t.Fatal(err)
		}
		if _, err := decodeRecord(s.ID(), again.kept[s.ID()]); err != nil {
			t.Fatalf("encoded again: %v", err)
		}
	})
}

func BenchmarkIssueLeaf(b *testing.B) {
	s := newTestSession(b, newMemory())
	key := leafKey(b)
	b.ReportAllocs()
	for b.Loop() {
		s.leaves, s.issued = bucket{}, 0
		if _, _, err := s.IssueLeaf("api.example.org", key); err != nil {
			b.Fatal(err)
		}
	}
}
