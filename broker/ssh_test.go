package broker

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	brokerssh "torno.internal/broker/internal/ssh"
	"torno.internal/protocol"
	"torno.internal/protocol/control"
	"torno.internal/protocol/seal"
)

// A sshDesk is a broker that reaches git.example.org at an SSH server of this test, with a key for it.
type sshDesk struct {
	*desk
	server string // address
	host   ssh.Signer
	key    ssh.PublicKey

	known   string    // the line of known_hosts
	private []byte    // the key in PEM
	expires time.Time // of the key when it is set
}

func newSSHDesk(t *testing.T) *sshDesk {
	t.Helper()
	_, hostKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	d := &sshDesk{desk: newDesk(t, nil)}
	d.host, err = ssh.NewSignerFromKey(hostKey)
	d.must(err)
	d.server = d.serveSSH()
	d.stop()
	d.cfg.Operator.Upstreams = append(d.cfg.Operator.Upstreams, control.Upstream{Host: "git.example.org", Port: 22, Dial: d.server},
		control.Upstream{Host: "other.example.org", Port: 22, Dial: d.server})
	d.start()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	d.must(err)
	block, err := ssh.MarshalPrivateKey(private, "")
	d.must(err)
	d.key, err = ssh.NewPublicKey(private.Public())
	d.must(err)
	d.known = "git.example.org ssh-ed25519 " + base64.StdEncoding.EncodeToString(d.host.PublicKey().Marshal())
	d.private = pem.EncodeToMemory(block)
	d.must(d.setSSH(d.known, d.private))
	return d
}

// setSSH sets agent a's key DEPLOY_KEY for git.example.org.
func (d *sshDesk) setSSH(known string, value []byte) error {
	d.t.Helper()
	var next control.NextVersion
	d.must(d.call("GET", control.PathNextVersion+"?agent=a&name=DEPLOY_KEY", nil, &next))
	m := control.Meta{Agent: "a", Name: "DEPLOY_KEY", Version: next.Version, Audience: []string{"ssh://git.example.org"}, Created: time.Now(), Expires: d.expires}
	m.Inject = control.Injector{Scheme: control.SchemeSSH, Params: []control.Param{{Name: control.ParamKnownHosts, Value: known}}}
	var pk control.PublicKey
	d.must(d.call("GET", control.PathPublicKey, nil, &pk))
	key, err := seal.ParsePublicKey(pk.Key)
	d.must(err)
	sealed, err := key.Seal(value, control.AssociatedData(m, pk.ID))
	d.must(err)
	return d.call("POST", control.PathSecrets, []control.SealedSecret{{Meta: m, KeyID: pk.ID, Sealed: sealed}}, nil)
}

// serveSSH serves SSH until the test ends and returns the address.
func (d *sshDesk) serveSSH() string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	d.must(err)
	config := &ssh.ServerConfig{NoClientAuth: true}
	config.AddHostKey(d.host)
	done := make(chan struct{})
	d.t.Cleanup(func() { ln.Close(); <-done })
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if conn, _, _, err := ssh.NewServerConn(c, config); err == nil {
					_ = conn.Wait()
				}
			}()
		}
	}()
	return ln.Addr().String()
}

// A wire is a stream's content as a connection.
type wire struct{ *peer }

func (w wire) Read(p []byte) (int, error) { return w.r.Read(p) }

func (w wire) Write(p []byte) (int, error) {
	if _, err := w.w.Write(p); err != nil {
		return 0, err
	}
	return len(p), w.w.Flush()
}

// open begins an exchange on a stream of a session and returns its content; the error is the refusal's reason.
func (d *sshDesk) exchange(s control.SessionCreated, kind protocol.Kind, token []byte, req *protocol.Request) (net.Conn, error) {
	d.t.Helper()
	p, err := d.dial(s.Broker, kind, token)
	d.must(err)
	d.must(p.w.WriteRequest(req))
	d.must(p.w.Flush())
	var resp protocol.Response
	d.must(p.r.ReadResponse(&resp))
	if resp.Status != 200 {
		return nil, errors.New(resp.Fields.Get(protocol.FieldReason))
	}
	return wire{p}, nil
}

// An greeted session has said hello.
type greeted struct {
	control.SessionCreated
	hello protocol.HelloResponse
}

func (d *sshDesk) openSession(agent string) greeted {
	d.t.Helper()
	s := d.session(agent)
	h, err := d.hello(s.Broker, 1)
	d.must(err)
	return greeted{s, h}
}

func (d *sshDesk) tunnel(s greeted, authority string) (net.Conn, error) {
	return d.exchange(s.SessionCreated, protocol.KindForward, s.hello.Token, &protocol.Request{Method: "CONNECT", Authority: authority})
}

func (d *sshDesk) agent(s greeted) (agent.ExtendedAgent, net.Conn, error) {
	c, err := d.exchange(s.SessionCreated, protocol.KindChannel, s.hello.Token,
		&protocol.Request{Method: "POST", Scheme: protocol.Scheme, Authority: protocol.BrokerAuthority, Path: protocol.PathSSH})
	if err != nil {
		return nil, nil, err
	}
	return agent.NewClient(c), c, nil
}

// A login is an SSH connection that has exchanged keys.
type login struct {
	io.Closer
	wait func() error // until the connection ends
	bind struct {
		HostKey, Session, Signature []byte
		Forwarding                  bool
	}
	data []byte // to be signed
}

// exchangeKeys exchanges keys with the server over c.
func (d *sshDesk) exchangeKeys(c net.Conn) *login {
	d.t.Helper()
	l := &login{Closer: c}
	watch := brokerssh.NewWatch(func(p brokerssh.Proof) { l.bind.HostKey, l.bind.Signature = p.HostKey, p.Signature })
	conn, _, _, err := ssh.NewClientConn(tapped{c, watch}, "git.example.org:22", &ssh.ClientConfig{User: "git", HostKeyCallback: ssh.FixedHostKey(d.host.PublicKey())})
	d.must(err)
	l.wait = conn.Wait
	l.bind.Session = conn.SessionID()
	l.data = ssh.Marshal(struct {
		Session               []byte
		Number                byte
		User, Service, Method string
		Signed                bool
		Algorithm             string
		Key                   []byte
	}{l.bind.Session, 50, "git", "ssh-connection", "publickey", true, ssh.KeyAlgoED25519, d.key.Marshal()})
	return l
}

// A tapped connection has its reads written down.
type tapped struct {
	net.Conn
	w io.Writer
}

func (t tapped) Read(p []byte) (int, error) {
	n, err := t.Conn.Read(p)
	_, _ = t.w.Write(p[:n])
	return n, err
}

// signs reports whether a client of the session's agent gets a signature for l.
func (d *sshDesk) signs(s greeted, l *login) bool {
	d.t.Helper()
	a, c, err := d.agent(s)
	d.must(err)
	defer c.Close()
	_, bound := a.Extension("session-bind@openssh.com", ssh.Marshal(l.bind))
	signature, err := a.Sign(d.key, l.data)
	if (bound == nil) != (err == nil) {
		d.t.Errorf("bind: %v, but sign: %v", bound, err)
	}
	return err == nil && d.key.Verify(l.data, signature) == nil
}

func (d *sshDesk) exchangeKeysIn(s greeted) *login {
	d.t.Helper()
	c, err := d.tunnel(s, "git.example.org:22")
	d.must(err)
	return d.exchangeKeys(c)
}

// Attack 44: a signature is to be had for an SSH connection that goes through an open tunnel of the same session, once.
func TestAttack44SSHRelay(t *testing.T) {
	d := newSSHDesk(t)
	a, b := d.openSession("a"), d.openSession("a")
	if l := d.exchangeKeysIn(a); !d.signs(a, l) {
		t.Fatal("control: no signature for a session's own connection")
	} else if d.signs(a, l) {
		t.Error("replayed: a second client got a signature for the same connection")
	}
	if l := d.exchangeKeysIn(a); d.signs(b, l) {
		t.Error("a signature for another session's connection")
	} else if !d.signs(a, l) {
		t.Error("control: and then none for its own")
	}
	outside, err := net.Dial("tcp", d.server)
	d.must(err)
	defer outside.Close()
	if d.signs(a, d.exchangeKeys(outside)) {
		t.Error("a signature for a connection from elsewhere")
	}
	l := d.exchangeKeysIn(a)
	l.Close()
	d.awaitNoSighting(a)
	if d.signs(a, l) {
		t.Error("a signature for a connection whose tunnel is closed")
	}
	if _, err := d.tunnel(a, "other.example.org:22"); err == nil || err.Error() != "denied" {
		t.Errorf("a tunnel to where no key goes: %v", err)
	}
}

// A session without an SSH key has no agent; one with a key that is revoked has an empty one.
func TestSSHAgentOfSession(t *testing.T) {
	d := newSSHDesk(t)
	none := d.openSession("nobody")
	if _, _, err := d.agent(none); err == nil || err.Error() != "unsupported" || none.hello.SSH != nil {
		t.Errorf("without a key: %v, hello %+v", err, none.hello.SSH)
	}
	s := d.openSession("a")
	if s.hello.SSH == nil || len(s.hello.SSH.KnownHosts) != 1 || !strings.HasPrefix(s.hello.SSH.KnownHosts[0], "git.example.org ssh-ed25519 ") {
		t.Errorf("hello says %+v", s.hello.SSH)
	}
	client, c, err := d.agent(s)
	d.must(err)
	defer c.Close()
	if keys, err := client.List(); err != nil || len(keys) != 1 || keys[0].Comment != "DEPLOY_KEY" {
		t.Errorf("%v, %v", keys, err)
	}
	l := d.exchangeKeysIn(s)
	d.must(d.call("DELETE", control.PathSecrets+"?agent=a&name=DEPLOY_KEY", nil, nil))
	if keys, err := client.List(); err != nil || len(keys) != 0 {
		t.Errorf("revoked: %v, %v", keys, err)
	}
	if _, _, err := d.agent(s); err == nil {
		t.Error("revoked: a new client is served")
	}
	if _, err := l.Closer.(net.Conn).Read(make([]byte, 1)); err == nil { // cut, for it may have been let in by the key
		t.Error("revoked: its connection goes on")
	}
}

// A key that could not be used is refused when it is set.
func TestSSHKeyRefusedWhenSet(t *testing.T) {
	d := newSSHDesk(t)
	host := base64.StdEncoding.EncodeToString(d.host.PublicKey().Marshal())
	_, private, err := ed25519.GenerateKey(rand.Reader)
	d.must(err)
	block, err := ssh.MarshalPrivateKey(private, "")
	d.must(err)
	good := pem.EncodeToMemory(block)
	locked, err := ssh.MarshalPrivateKeyWithPassphrase(private, "", []byte("x"))
	d.must(err)
	for name, c := range map[string]struct {
		known string
		value []byte
		want  string
	}{
		"control":      {"git.example.org ssh-ed25519 " + host, good, ""},
		"another host": {"other.example.org ssh-ed25519 " + host, good, "no host key of git.example.org:22"},
		"no host key":  {"git.example.org ssh-ed25519 AAAA", good, "host key of git.example.org:22"},
		"no key":       {"git.example.org ssh-ed25519 " + host, []byte("password"), "no private key"},
		"locked":       {"git.example.org ssh-ed25519 " + host, pem.EncodeToMemory(locked), "passphrase"},
	} {
		err := d.setSSH(c.known, c.value)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// askingLogin makes a key exchange in a tunnel of s and has a client that does not name its connection ask for a signature.
// The answer comes once somebody has decided.
func (d *sshDesk) askingLogin(s greeted, l *login) (done <-chan bool, c net.Conn) {
	d.t.Helper()
	a, c, err := d.agent(s)
	d.must(err)
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	signed := make(chan bool, 1)
	go func() {
		signature, err := a.Sign(d.key, l.data)
		signed <- err == nil && d.key.Verify(l.data, signature) == nil
	}()
	return signed, c
}

// A client that does not name its connection, as those do that are not OpenSSH's or older than its 8.9, waits for a person.
func TestSSHAsk(t *testing.T) {
	d := newSSHDesk(t)
	s := d.openSession("a")
	decide := func(allow bool) control.Approval {
		t.Helper()
		list := d.waiting(1)
		d.must(d.call("POST", control.PathApprovals, control.ApprovalDecision{ID: list[0].ID, Allow: allow}, nil))
		return list[0]
	}
	l := d.exchangeKeysIn(s)
	done, _ := d.askingLogin(s, l)
	shown := decide(true)
	if !<-done {
		t.Error("allowed, and not signed")
	}
	if shown.Scheme != "ssh" || shown.Authority != "git.example.org:22" || shown.Secret != "DEPLOY_KEY" || shown.Session != s.ID || !strings.Contains(shown.Rule, "as git") || shown.Grant != "" {
		t.Errorf("shown: %+v", shown)
	}
	if done, _ := d.askingLogin(s, l); <-done {
		t.Error("one word of a person's was good for two signatures")
	}
	done, _ = d.askingLogin(s, d.exchangeKeysIn(s))
	decide(false)
	if <-done {
		t.Error("denied, and signed")
	}
	log := d.auditText()
	if strings.Count(log, `"event":"ssh_signed"`) != 1 || !strings.Contains(log, `"approval":"allowed by uid `) || !strings.Contains(log, "a person was asked: denied") {
		t.Errorf("audit: %s", log)
	}
}

// Nobody answers: the login is refused in time. What waits ends with its client.
func TestSSHAskTimesOut(t *testing.T) {
	d := newSSHDesk(t)
	d.stop()
	d.cfg.Operator.Limits = control.Limits{AskSeconds: 1}
	d.start()
	s := d.openSession("a")
	if done, _ := d.askingLogin(s, d.exchangeKeysIn(s)); <-done {
		t.Error("nobody answered, and it is signed")
	}
	if log := d.auditText(); !strings.Contains(log, "a person was asked: timed out") {
		t.Errorf("audit: %s", log)
	}
	d.stop()
	d.cfg.Operator.Limits = control.Limits{AskSeconds: 600}
	d.start()
	l := d.exchangeKeysIn(s)
	_, c := d.askingLogin(s, l)
	d.waiting(1)
	c.Close()
	d.waiting(0)
}

// TestAttack44SSHAsk has a person allow everything: a login for a connection that does not go through the session's own tunnels is
// not asked about, and one whose tunnel is closed meanwhile is not signed.
func TestAttack44SSHAsk(t *testing.T) {
	d := newSSHDesk(t)
	s, other := d.openSession("a"), d.openSession("a")
	outside, err := net.Dial("tcp", d.server)
	d.must(err)
	defer outside.Close()
	for name, l := range map[string]*login{"from elsewhere": d.exchangeKeys(outside), "of another session": d.exchangeKeysIn(other)} {
		if done, _ := d.askingLogin(s, l); <-done {
			t.Errorf("a signature for a connection %s", name)
		}
	}
	d.waiting(0)
	l := d.exchangeKeysIn(s)
	done, _ := d.askingLogin(s, l)
	list := d.waiting(1)
	l.Close()
	d.awaitNoSighting(s)
	d.must(d.call("POST", control.PathApprovals, control.ApprovalDecision{ID: list[0].ID, Allow: true}, nil))
	if <-done {
		t.Error("a signature for a connection whose tunnel is closed")
	}
	// A client that has named one connection is not asked about for another.
	l, second := d.exchangeKeysIn(s), d.exchangeKeysIn(s)
	a, c, err := d.agent(s)
	d.must(err)
	defer c.Close()
	if _, err := a.Extension("session-bind@openssh.com", ssh.Marshal(l.bind)); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Sign(d.key, second.data); err == nil {
		t.Error("a signature for another connection than was named")
	}
	d.waiting(0)
}

// awaitNoSighting waits until no tunnel of the session is open whose key exchange could be asked for.
func (d *sshDesk) awaitNoSighting(s greeted) {
	d.t.Helper()
	live := d.broker.get(s.ID)
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		live.seen.mu.Lock()
		open := 0
		for one := range live.seen.open {
			if one.found {
				open++
			}
		}
		live.seen.mu.Unlock()
		if open == 0 {
			return
		}
	}
	d.t.Error("a tunnel stays open")
}
