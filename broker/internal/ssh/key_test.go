package ssh

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"torno.internal/protocol/secret"
)

func TestCheck(t *testing.T) {
	encode := func(block *pem.Block, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(block)
	}
	key, plain := newPrivate(t, "ed25519")
	short, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Skipf("no short key can be made to be refused: %v", err)
	}
	for name, c := range map[string]struct {
		value []byte
		want  string // in the error; empty: none
	}{
		"ed25519":         {plain, ""},
		"without newline": {bytes.TrimSpace(plain), ""},
		"locked":          {encode(ssh.MarshalPrivateKeyWithPassphrase(key, "", []byte("x"))), "passphrase"},
		"short":           {encode(ssh.MarshalPrivateKey(short, "")), "1024 bits"},
		"public":          {ssh.MarshalAuthorizedKey(publicOf(t, plain)), "not a private key"},
		"cut":             {plain[:len(plain)/2], "not a private key"},
		"empty":           {nil, "not a private key"},
	} {
		err := Check(c.value)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	for _, kind := range []string{"ecdsa", "rsa"} {
		if _, value := newPrivate(t, kind); Check(value) != nil {
			t.Errorf("%s: %v", kind, Check(value))
		}
	}
}

// The private part is what the public one does not show, and is found in the file.
func TestPrivate(t *testing.T) {
	for _, kind := range []string{"ed25519", "ecdsa", "rsa"} {
		key, value := newPrivate(t, kind)
		private, err := Private(secret.New(value))
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(value)
		public := publicOf(t, value).Marshal()
		_ = private.Use(func(b []byte) error {
			const run = 12
			if len(b) < 32 || !bytes.Contains(block.Bytes, b[:run]) {
				t.Errorf("%s: %d bytes, or not of the file", kind, len(b))
			}
			for i := range len(b) - run {
				if bytes.Contains(public, b[i:i+run]) {
					t.Fatalf("%s: %d bytes of it are public", kind, run)
				}
			}
			if k, ok := key.(ed25519.PrivateKey); ok && !bytes.Equal(k.Seed(), b) {
				t.Error("not the seed")
			}
			return nil
		})
	}
}

func TestKnownHosts(t *testing.T) {
	host := newSigner(t, "ed25519").PublicKey()
	line := knownLine(git, host)
	known, err := ParseKnownHosts(line + ", " + knownLine(other, host))
	if err != nil {
		t.Fatal(err)
	}
	blob := host.Marshal()
	for _, c := range []struct {
		got, want bool
		what      string
	}{
		{known.Has(git, blob), true, "its key"}, {known.Has(other, blob), true, "a port's key"},
		{known.Has(git, newSigner(t, "ed25519").PublicKey().Marshal()), false, "another key"},
		{known.Knows(git), true, "a known host"}, {KnownHosts{}.Knows(git), false, "no host"},
	} {
		if c.got != c.want {
			t.Errorf("%s: %v", c.what, c.got)
		}
	}
	if want := "[other.example.org]:2222 ssh-ed25519 "; !strings.HasPrefix(known.Lines()[1], want) {
		t.Errorf("%q does not begin with %q", known.Lines()[1], want)
	}
	for _, bad := range []string{
		"", "x", "git.example.org", strings.Replace(line, "ssh-ed25519", "ssh-rsa", 1), line + " comment", "@cert-authority " + line,
		strings.Replace(line, "git.example.org", "*.example.org", 1), strings.Replace(line, "git.example.org", "|1|x|y", 1),
		line + ",", strings.Replace(line, "AAAA", "AAAB", 1), line[:len(line)-4],
	} {
		if _, err := ParseKnownHosts(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func FuzzKnownHosts(f *testing.F) {
	f.Add(knownLine(git, newSigner(f, "ed25519").PublicKey()))
	f.Add("[x]:22 ssh-ed25519 AAAA, y z w")
	f.Fuzz(func(t *testing.T, text string) {
		known, err := ParseKnownHosts(text)
		if err != nil {
			return
		}
		again, err := ParseKnownHosts(strings.Join(known.Lines(), ","))
		if err != nil || strings.Join(again.Lines(), ",") != strings.Join(known.Lines(), ",") {
			t.Fatalf("%q is written as %q: %v", text, known.Lines(), err)
		}
	})
}
