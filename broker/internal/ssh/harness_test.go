package ssh

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/pem"
	"io"
	"net"
	"testing"

	"golang.org/x/crypto/ssh"

	"torno.internal/protocol"
	"torno.internal/protocol/secret"
)

var (
	git   = protocol.Authority{Host: "git.example.org", Port: 22}
	other = protocol.Authority{Host: "other.example.org", Port: 2222}
)

// newPrivate returns a key of a type, and as OpenSSH writes it.
func newPrivate(t testing.TB, kind string) (crypto.Signer, []byte) {
	t.Helper()
	var key crypto.Signer
	var err error
	switch kind {
	case "ed25519":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case "ecdsa":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "rsa":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	}
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	return key, pem.EncodeToMemory(block)
}

func newSigner(t testing.TB, kind string) ssh.Signer {
	t.Helper()
	key, _ := newPrivate(t, kind)
	s, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func publicOf(t testing.TB, value []byte) ssh.PublicKey {
	t.Helper()
	s, err := ssh.ParsePrivateKey(value)
	if err != nil {
		t.Fatal(err)
	}
	return s.PublicKey()
}

// knownLine is a line of known_hosts.
func knownLine(a protocol.Authority, key ssh.PublicKey) string {
	return FormatHost(a) + " " + key.Type() + " " + base64.StdEncoding.EncodeToString(key.Marshal())
}

// A desk is an agent with one key for git, whose host key is host.
type desk struct {
	t       testing.TB
	agent   Agent
	host    ssh.Signer
	value   []byte
	public  ssh.PublicKey
	seen    map[string]protocol.Authority // by signature: open tunnels
	used    []Use
	refused []string
}

func newDesk(t testing.TB, kind string) *desk {
	t.Helper()
	_, value := newPrivate(t, kind)
	d := &desk{t: t, host: newSigner(t, "ed25519"), value: value, public: publicOf(t, value), seen: map[string]protocol.Authority{}}
	known, err := ParseKnownHosts(knownLine(git, d.host.PublicKey()))
	if err != nil {
		t.Fatal(err)
	}
	keys := []Key{{Name: "DEPLOY_KEY", Version: 1, Value: secret.New(value), Audience: []protocol.Authority{git}, Known: known}}
	d.agent = d.newAgent(keys)
	return d
}

func (d *desk) newAgent(keys []Key) Agent {
	return Agent{
		Keys: func() []Key { return keys },
		Seen: func(p Proof) (protocol.Authority, bool) {
			a, ok := d.seen[string(p.Signature)]
			delete(d.seen, string(p.Signature))
			return a, ok
		},
		Exchanged: func([]byte) (protocol.Authority, Proof, bool) { return protocol.Authority{}, Proof{}, false },
		Record:    func(u Use) error { d.used = append(d.used, u); return nil },
		Refused:   func(r Refusal) { d.refused = append(d.refused, r.Err.Error()) },
	}
}

// again returns the agent as another client finds it.
func (d *desk) again() *Agent {
	a := d.agent
	a.bound = bound{}
	return &a
}

// bindMessage is what a client says about a connection with host.
func bindMessage(t testing.TB, host ssh.Signer, session []byte, forwarding bool) (message, signature []byte) {
	t.Helper()
	made, err := host.Sign(rand.Reader, session)
	if err != nil {
		t.Fatal(err)
	}
	signature = ssh.Marshal(made)
	message = appendString([]byte{agentExtension}, []byte(extensionBind))
	message = appendString(message, host.PublicKey().Marshal())
	message = appendString(appendString(message, session), signature)
	if forwarding {
		return append(message, 1), signature
	}
	return append(message, 0), signature
}

// loginData is what a client wants signed.
func loginData(session []byte, user, algorithm string, key []byte, hostKey []byte) []byte {
	b := appendString(nil, session)
	b = appendString(append(b, 50), []byte(user))
	b = appendString(b, []byte("ssh-connection"))
	method := methodPublicKey
	if hostKey != nil {
		method = methodHostBound
	}
	b = append(appendString(b, []byte(method)), 1)
	b = appendString(appendString(b, []byte(algorithm)), key)
	if hostKey != nil {
		b = appendString(b, hostKey)
	}
	return b
}

func signMessage(key, data []byte, flags byte) []byte {
	b := appendString(appendString([]byte{agentSign}, key), data)
	return append(b, 0, 0, 0, flags)
}

// A wiretap is a connection whose server is watched.
type wiretap struct {
	net.Conn
	watch io.Writer
	all   *bytes.Buffer
}

func (w wiretap) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	_, _ = w.watch.Write(p[:n])
	w.all.Write(p[:n])
	return n, err
}
