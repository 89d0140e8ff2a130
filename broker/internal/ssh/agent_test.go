package ssh

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"torno.internal/protocol"
	"torno.internal/protocol/secret"
)

var session = bytes.Repeat([]byte{7}, 32)

// bindTo binds a's connection to host, whose key exchange went through an open tunnel to at.
func (d *desk) bindTo(a *Agent, host ssh.Signer, at protocol.Authority) byte {
	message, signature := bindMessage(d.t, host, session, false)
	d.seen[string(signature)] = at
	return a.answer(message)[0]
}

// A login on a bound connection is signed, with a key of each type, by what the server will ask for.
func TestSignsLogin(t *testing.T) {
	for _, c := range []struct {
		kind, algorithm string
		flags           byte
		bound           bool
	}{
		{"ed25519", ssh.KeyAlgoED25519, 0, false}, {"ed25519", ssh.KeyAlgoED25519, 0, true}, {"ecdsa", ssh.KeyAlgoECDSA256, 0, true},
		{"rsa", ssh.KeyAlgoRSASHA256, flagSHA256, false}, {"rsa", ssh.KeyAlgoRSASHA512, flagSHA512, true},
	} {
		d := newDesk(t, c.kind)
		if n := d.bindTo(&d.agent, d.host, git); n != agentSuccess {
			t.Fatalf("%v: bind is answered with %d: %q", c, n, d.refused)
		}
		var hostKey []byte
		if c.bound {
			hostKey = d.host.PublicKey().Marshal()
		}
		data := loginData(session, "git", c.algorithm, d.public.Marshal(), hostKey)
		answer := d.agent.answer(signMessage(d.public.Marshal(), data, c.flags))
		r := reader{b: answer[1:]}
		var signature ssh.Signature
		if answer[0] != agentSigned || ssh.Unmarshal(r.str(), &signature) != nil || signature.Format != c.algorithm || d.public.Verify(data, &signature) != nil {
			t.Errorf("%v: answer %d: %q", c, answer[0], d.refused)
		}
		if want := (Use{git, "git", d.used[0].Key, ""}); len(d.used) != 1 || d.used[0] != want || d.used[0].Key.Name != "DEPLOY_KEY" {
			t.Errorf("%v: recorded %+v", c, d.used)
		}
	}
}

// Attack 44: a signature for what is no connection of this session's own to a host of the key's is not to be had.
func TestAttack44Relay(t *testing.T) {
	const good = "control"
	for name, c := range map[string]struct {
		want string // of the refusal
		do   func(d *desk, a *Agent) byte
	}{
		good:                            {"", func(d *desk, a *Agent) byte { return d.bindTo(a, d.host, git) }},
		"no bind":                       {"has not named its connection", func(*desk, *Agent) byte { return 0 }},
		"a key exchange made elsewhere": {"was not seen on an open tunnel", func(d *desk, a *Agent) byte { m, _ := bindMessage(d.t, d.host, session, false); return a.answer(m)[0] }},
		"another host's key":            {"not the known one", func(d *desk, a *Agent) byte { return d.bindTo(a, newSigner(d.t, "ed25519"), git) }},
		"another host":                  {"not the known one", func(d *desk, a *Agent) byte { return d.bindTo(a, d.host, other) }},
		"another session id": {"signature is wrong", func(d *desk, a *Agent) byte {
			m, s := bindMessage(d.t, d.host, bytes.Repeat([]byte{8}, 32), false)
			d.seen[string(s)] = git
			return a.answer(bytes.Replace(m, bytes.Repeat([]byte{8}, 32), session, 1))[0]
		}},
		"a tunnel used before": {"was not seen", func(d *desk, a *Agent) byte {
			d.bindTo(d.again(), d.host, git)
			m, s := bindMessage(d.t, d.host, session, false)
			delete(d.seen, string(s)) // ed25519 signs the same way again
			return a.answer(m)[0]
		}},
		"forwarded": {"forwarded", func(d *desk, a *Agent) byte {
			m, s := bindMessage(d.t, d.host, session, true)
			d.seen[string(s)] = git
			return a.answer(m)[0]
		}},
		"forwarded, then not": {"bound before", func(d *desk, a *Agent) byte {
			m, _ := bindMessage(d.t, d.host, session, true)
			a.answer(m)
			return d.bindTo(a, d.host, git)
		}},
		"bound twice": {"bound before", func(d *desk, a *Agent) byte {
			d.bindTo(a, d.host, git)
			return d.bindTo(a, d.host, git)
		}},
		"a signature by SHA-1": {"SHA-1", func(d *desk, a *Agent) byte {
			host := newSigner(d.t, "rsa")
			made, _ := host.Sign(nil, session)
			m := appendString(appendString([]byte{agentExtension}, []byte(extensionBind)), host.PublicKey().Marshal())
			m = append(appendString(appendString(m, session), ssh.Marshal(made)), 0)
			d.seen[string(ssh.Marshal(made))] = git
			return a.answer(m)[0]
		}},
	} {
		d := newDesk(t, "ed25519")
		bound := c.do(d, &d.agent)
		data := loginData(session, "git", ssh.KeyAlgoED25519, d.public.Marshal(), nil)
		answer := d.agent.answer(signMessage(d.public.Marshal(), data, 0))
		if name == good {
			if answer[0] != agentSigned || bound != agentSuccess {
				t.Errorf("%s: %d, %q", name, answer[0], d.refused)
			}
			continue
		}
		if answer[0] != agentFailure || len(answer) != 1 || len(d.used) != 0 || bound == agentSuccess {
			t.Errorf("%s: answer %d, bound %d, %d signatures recorded", name, answer[0], bound, len(d.used))
		}
		if !strings.Contains(strings.Join(d.refused, "\n"), c.want) {
			t.Errorf("%s: refused with %q, want %q", name, d.refused, c.want)
		}
	}
}

// Nothing is signed but a login with the key, on the connection, as the user.
func TestAttack44OtherData(t *testing.T) {
	d := newDesk(t, "ed25519")
	key := d.public.Marshal()
	good := loginData(session, "git", ssh.KeyAlgoED25519, key, nil)
	rsaDesk := newDesk(t, "rsa")
	for name, c := range map[string]struct {
		data  []byte
		flags byte
	}{
		"another connection": {loginData(bytes.Repeat([]byte{9}, 32), "git", ssh.KeyAlgoED25519, key, nil), 0},
		"another key":        {loginData(session, "git", ssh.KeyAlgoED25519, rsaDesk.public.Marshal(), nil), 0},
		"another host":       {loginData(session, "git", ssh.KeyAlgoED25519, key, rsaDesk.host.PublicKey().Marshal()), 0},
		"another algorithm":  {loginData(session, "git", ssh.KeyAlgoRSASHA256, key, nil), flagSHA256},
		"flags":              {good, flagSHA256},
		"bytes behind":       {append(bytes.Clone(good), 0), 0},
		"cut short":          {good[:len(good)-1], 0},
		"a file":             {append([]byte("SSHSIG"), good...), 0},
		"nothing":            {nil, 0},
		"text":               {[]byte("sign this"), 0},
		"a probe":            {bytes.Replace(good, []byte("publickey\x01"), []byte("publickey\x00"), 1), 0},
		"another service":    {bytes.Replace(good, []byte("ssh-connection"), []byte("ssh-userauthXX"), 1), 0},
	} {
		a := d.again()
		if d.bindTo(a, d.host, git) != agentSuccess {
			t.Fatal(d.refused)
		}
		if answer := a.answer(signMessage(key, c.data, c.flags)); answer[0] != agentFailure {
			t.Errorf("%s: answer %d", name, answer[0])
		}
	}
	if len(d.used) != 0 {
		t.Errorf("%d signatures were recorded", len(d.used))
	}
	a := rsaDesk.again()
	if rsaDesk.bindTo(a, rsaDesk.host, git) != agentSuccess {
		t.Fatal(rsaDesk.refused)
	}
	public := rsaDesk.public.Marshal()
	for _, flags := range []byte{0, flagSHA256, flagSHA512} {
		if answer := a.answer(signMessage(public, loginData(session, "git", ssh.KeyAlgoRSA, public, nil), flags)); answer[0] != agentFailure {
			t.Errorf("SHA-1 with flags %d: answer %d", flags, answer[0])
		}
	}
}

// A login that can't be recorded, or is as another user, is not signed.
func TestSignRefused(t *testing.T) {
	d := newDesk(t, "ed25519")
	keys := d.agent.Keys()
	keys[0].User = "git"
	data := func(user string) []byte {
		return signMessage(d.public.Marshal(), loginData(session, user, ssh.KeyAlgoED25519, d.public.Marshal(), nil), 0)
	}
	if d.bindTo(&d.agent, d.host, git) != agentSuccess {
		t.Fatal(d.refused)
	}
	if answer := d.agent.answer(data("root")); answer[0] != agentFailure {
		t.Error("signed for another user")
	}
	if answer := d.agent.answer(data("git")); answer[0] != agentSigned {
		t.Errorf("control: %q", d.refused)
	}
	d.agent.Record = func(Use) error { return errors.New("disk full") }
	if answer := d.agent.answer(data("git")); answer[0] != agentFailure {
		t.Error("signed without a record")
	}
	d.agent.Keys = func() []Key { return nil } // revoked
	if answer := d.agent.answer(data("git")); answer[0] != agentFailure {
		t.Error("signed with a key that is not in use any more")
	}
}

// Go's client of the agent's protocol finds the keys, and can change nothing.
func TestOtherRequests(t *testing.T) {
	d := newDesk(t, "ed25519")
	_, elsewhere := newPrivate(t, "ecdsa")
	known, err := ParseKnownHosts(knownLine(other, d.host.PublicKey()))
	if err != nil {
		t.Fatal(err)
	}
	d.agent = d.newAgent(append(d.agent.Keys(), Key{Name: "OTHER", Value: secret.New(elsewhere), Audience: []protocol.Authority{other}, Known: known}))
	ours, theirs := net.Pipe()
	served := make(chan error, 1)
	go func() { served <- d.agent.Serve(ours) }()
	client := agent.NewClient(theirs)
	names := func() (all []string) {
		keys, err := client.List()
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range keys {
			all = append(all, k.Format+" "+k.Comment)
		}
		return all
	}
	if diff := cmp.Diff([]string{"ssh-ed25519 DEPLOY_KEY", "ecdsa-sha2-nistp256 OTHER"}, names()); diff != "" {
		t.Error(diff)
	}
	key, _ := newPrivate(t, "ed25519")
	for name, err := range map[string]error{
		"add": client.Add(agent.AddedKey{PrivateKey: key}), "remove": client.Remove(d.public), "remove all": client.RemoveAll(),
		"lock": client.Lock([]byte("x")), "unlock": client.Unlock([]byte("x")),
	} {
		if err == nil {
			t.Errorf("%s is done", name)
		}
	}
	if answer, err := client.Extension(extensionQuery, nil); err != nil || !bytes.Contains(answer, []byte(extensionBind)) {
		t.Errorf("query: %q, %v", answer, err)
	}
	if _, err := client.Extension("restrict-destination-v00@openssh.com", nil); err == nil {
		t.Error("another extension is known")
	}
	if _, err := client.Sign(d.public, []byte("data")); err == nil {
		t.Error("data is signed")
	}
	d.bindTo(&d.agent, d.host, git)
	if diff := cmp.Diff([]string{"ssh-ed25519 DEPLOY_KEY"}, names()); diff != "" {
		t.Errorf("bound to one host: %s", diff)
	}
	theirs.Close()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// What is malformed ends the connection, within bounds.
func TestServeMalformed(t *testing.T) {
	d := newDesk(t, "ed25519")
	list := []byte{0, 0, 0, 1, agentListIdentities}
	for name, c := range map[string]struct {
		said []byte
		ends bool // with an error
	}{
		"control":       {list, false},
		"nothing":       {nil, false},
		"empty message": {[]byte{0, 0, 0, 0}, true},
		"long":          {[]byte{0, 0, 0x80, 1, 1}, true},
		"longest":       {[]byte{0xff, 0xff, 0xff, 0xff}, true},
		"cut short":     {list[:4], true},
		"half a length": {list[:2], true},
		"a flood":       {bytes.Repeat(list, maxMessages+1), true},
	} {
		a := d.again()
		err := a.Serve(struct {
			io.Reader
			io.Writer
		}{bytes.NewReader(c.said), io.Discard})
		if (err != nil) != c.ends {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzAgent(f *testing.F) {
	d := newDesk(f, "ed25519")
	bind, signature := bindMessage(f, d.host, session, false)
	f.Add(bind)
	f.Add([]byte{agentListIdentities})
	f.Add(signMessage(d.public.Marshal(), loginData(session, "git", ssh.KeyAlgoED25519, d.public.Marshal(), nil), 0))
	f.Add(append([]byte{agentExtension}, "\x00\x00\x00\x05query"...))
	f.Fuzz(func(t *testing.T, message []byte) {
		if len(message) == 0 || len(message) > maxMessage {
			return
		}
		for _, isBound := range []bool{false, true} {
			a := d.again()
			if isBound {
				d.seen[string(signature)] = git
				a.answer(bind)
			}
			d.used = nil
			answer := a.answer(message)
			if answer[0] == agentSigned && (!isBound || len(d.used) != 1) {
				t.Fatalf("signed, bound: %v, %d records", isBound, len(d.used))
			}
		}
	})
}

// FuzzLogin wants a login to have one spelling.
func FuzzLogin(f *testing.F) {
	f.Add(loginData(session, "git", ssh.KeyAlgoED25519, []byte("key"), nil))
	f.Add(loginData(session, "git", ssh.KeyAlgoED25519, []byte("key"), []byte("host")))
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := parseLogin(data)
		if err != nil {
			return
		}
		if again := loginData(l.session, l.user, l.algorithm, l.key, l.hostKey); !bytes.Equal(again, data) {
			t.Fatalf("read from %x, written as %x", data, again)
		}
	})
}
