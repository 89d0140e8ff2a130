package broker

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
	"torno.internal/protocol/postgres"
	"torno.internal/protocol/seal"
)

const rolePassword = "pg-4c1d9e8f7a6b5c4d3e2f1a0b"

// A roleDesk is a broker that reaches db.example.org at a server of this test, which trusts everybody, calls each
// connection 1 2, and says back what it hears.
type roleDesk struct {
	*sshDesk
	cancels chan string
}

func newRoleDesk(t *testing.T) *roleDesk {
	t.Helper()
	d := &roleDesk{&sshDesk{desk: newDesk(t, nil)}, make(chan string, 16)}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	d.must(err)
	done := make(chan struct{})
	t.Cleanup(func() { ln.Close(); <-done })
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go d.serveRole(c)
		}
	}()
	d.stop()
	d.cfg.Operator.Upstreams = []control.Upstream{{Host: "db.example.org", Port: 5432, Dial: ln.Addr().String()}}
	d.start()
	d.setRole("DATABASE_URL", "app", "app")
	return d
}

func (d *roleDesk) serveRole(c net.Conn) {
	defer c.Close()
	code, body, err := postgres.ReadStartup(c)
	switch {
	case err != nil:
	case code == postgres.CodeCancel:
		d.cancels <- fmt.Sprint(binary.BigEndian.Uint32(body), binary.BigEndian.Uint32(body[4:]))
	default:
		b := postgres.AppendMessage(nil, 'R', make([]byte, 4))
		b = postgres.AppendMessage(b, 'K', []byte{0, 0, 0, 1, 0, 0, 0, 2})
		_, _ = c.Write(postgres.AppendMessage(b, 'Z', []byte("I")))
		_, _ = io.Copy(c, c)
	}
}

// setRole sets agent a's password of a user for a database.
func (d *roleDesk) setRole(name, user, database string) {
	d.t.Helper()
	m := control.Meta{Agent: "a", Name: name, Version: 1, Audience: []string{"postgres://db.example.org"}, Created: time.Now(), Expires: d.expires}
	m.Inject = control.Injector{Scheme: control.SchemePostgres, Params: []control.Param{
		{Name: control.ParamDatabase, Value: database}, {Name: control.ParamTLS, Value: control.TLSOff}, {Name: control.ParamUser, Value: user}}}
	var pk control.PublicKey
	d.must(d.call("GET", control.PathPublicKey, nil, &pk))
	key, err := seal.ParsePublicKey(pk.Key)
	d.must(err)
	sealed, err := key.Seal([]byte(rolePassword), control.AssociatedData(m, pk.ID))
	d.must(err)
	d.must(d.call("POST", control.PathSecrets, []control.SealedSecret{{Meta: m, KeyID: pk.ID, Sealed: sealed}}, nil))
}

func startupOf(code uint32, body string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(postgres.StartupHead+len(body)))
	return append(binary.BigEndian.AppendUint32(b, code), body...)
}

// log in as a user, and return the connection with all that is said before it is ready.
func (d *roleDesk) login(s greeted, user, database string) (net.Conn, string) {
	d.t.Helper()
	c, err := d.tunnel(s, "db.example.org:5432")
	d.must(err)
	_, err = c.Write(startupOf(3<<16, "user\x00"+user+"\x00database\x00"+database+"\x00\x00"))
	d.must(err)
	said := ""
	for {
		var head [5]byte
		if _, err := io.ReadFull(c, head[:]); err != nil {
			return c, said
		}
		body := make([]byte, binary.BigEndian.Uint32(head[1:])-4)
		_, err := io.ReadFull(c, body)
		d.must(err)
		said += string(head[:1]) + string(body)
		if head[0] == 'Z' {
			return c, said
		}
	}
}

// keyIn returns the key that a client is told.
func keyIn(said string) string {
	i := strings.IndexByte(said, 'K')
	return said[i+1 : i+9]
}

// A session cancels what its own connections do, by a key that is not the server's, and nobody else's.
func TestPostgresCancel(t *testing.T) {
	d := newRoleDesk(t)
	a, b := d.openSession("a"), d.openSession("a")
	c, said := d.login(a, "app", "app")
	key := keyIn(said)
	if key == "\x00\x00\x00\x01\x00\x00\x00\x02" {
		t.Error("the workload has the server's own key")
	}
	cancel := func(s greeted, key string) {
		w, err := d.tunnel(s, "db.example.org:5432")
		d.must(err)
		_, err = w.Write(startupOf(postgres.CodeCancel, key))
		d.must(err)
		if _, err := io.ReadAll(w); err != nil {
			t.Errorf("the end of a cancelling connection: %v", err)
		}
	}
	for _, none := range []struct {
		s   greeted
		key string
	}{{b, key}, {a, "\x00\x00\x00\x01\x00\x00\x00\x02"}, {a, key[:7] + string(key[7]^1)}} {
		cancel(none.s, none.key)
	}
	cancel(a, key)
	if got := <-d.cancels; got != "1 2" {
		t.Errorf("the server is to cancel %s, want 1 2", got)
	}
	c.Close()
	live := d.broker.get(a.ID)
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		live.cancels.mu.Lock()
		n := len(live.cancels.all)
		live.cancels.mu.Unlock()
		if n == 0 {
			break
		}
	}
	cancel(a, key)
	select {
	case got := <-d.cancels:
		t.Errorf("the server was asked to cancel %s, too", got)
	default:
	}
}

// What a server repeats of the password is masked, with messages as long as they were.
func TestPostgresMasked(t *testing.T) {
	d := newRoleDesk(t)
	s := d.openSession("a")
	c, _ := d.login(s, "app", "app")
	message := postgres.AppendMessage(nil, 'N', []byte("Mthe password is "+rolePassword+"\x00\x00"))
	_, err := c.Write(message)
	d.must(err)
	got := make([]byte, len(message))
	_, err = io.ReadFull(c, got)
	d.must(err)
	if want := strings.Replace(string(message), rolePassword, strings.Repeat("*", len(rolePassword)), 1); string(got) != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// The user says which of several secrets is meant. A secret that is revoked cuts what it has opened, and opens no more.
func TestPostgresRoles(t *testing.T) {
	d := newRoleDesk(t)
	d.setRole("OTHER_URL", "other", "app")
	s := d.openSession("a")
	for _, c := range []struct {
		user, database, want string
	}{{"app", "app", "I"}, {"other", "app", "I"}, {"other", "other", "torno: wrong_role"}, {"nobody", "app", "torno: wrong_role"}, {"", "app", "torno: wrong_role"}} {
		conn, said := d.login(s, c.user, c.database)
		if !strings.Contains(said, c.want) {
			t.Errorf("%s at %s: %q, want %q", c.user, c.database, said, c.want)
		}
		conn.Close()
	}
	conn, _ := d.login(s, "app", "app")
	d.must(d.call("DELETE", control.PathSecrets+"?agent=a&name=DATABASE_URL", nil, nil))
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("the connection goes on")
	}
	if _, said := d.login(s, "app", "app"); !strings.Contains(said, "torno: wrong_role") {
		t.Errorf("after revoking: %q", said)
	}
	d.must(d.call("DELETE", control.PathSecrets+"?agent=a&name=OTHER_URL", nil, nil))
	if _, err := d.tunnel(s, "db.example.org:5432"); err == nil || err.Error() != protocol.ReasonRevoked.String() {
		t.Errorf("a tunnel with no secret left: %v", err)
	}
}

// A client that is slow to begin, or begins with something else, is let go.
func TestPostgresMalformed(t *testing.T) {
	d := newRoleDesk(t)
	s := d.openSession("a")
	for _, said := range []string{"GET / HTTP/1.1\r\n\r\n", string(startupOf(2<<16, "\x00")), string(startupOf(3<<16, "user"))} {
		c, err := d.tunnel(s, "db.example.org:5432")
		d.must(err)
		_, _ = io.WriteString(c, said)
		if got, err := io.ReadAll(c); err != nil || !strings.Contains(string(got), "torno: bad_request") {
			t.Errorf("%q: %q, %v", said, got, err)
		}
	}
}
