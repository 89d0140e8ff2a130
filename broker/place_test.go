package broker

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/vsock"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
	"torno.internal/protocol/transport"
)

// vmOf asks for a session of a VM that somebody else starts.
func vmOf(agent string) control.SessionRequest {
	return control.SessionRequest{Agent: agent, Isolation: protocol.IsolationMicroVM, Workload: protocol.Workload{Argv: []string{"true"}}}
}

// hybrid registers a session at base, and returns it with where a VMM there brings connections to port 618.
func (d *desk) hybrid(agent, base string) (s control.SessionCreated, socket string) {
	d.t.Helper()
	req := vmOf(agent)
	req.Socket = "hybrid://" + base
	d.must(d.call("POST", control.PathSessions, req, &s))
	if s.Broker != req.Socket || len(s.Boot) > 0 {
		d.t.Errorf("registered at %q with %d bytes of nonce", s.Broker, len(s.Boot))
	}
	return s, "unix://" + base + "_618"
}

func (d *desk) info(id string) control.SessionInfo {
	d.t.Helper()
	var i control.SessionInfo
	d.must(d.call("GET", control.PathSession+id, nil, &i))
	return i
}

// events counts the audit's events of a session.
func (d *desk) events(session, event string) (n int) {
	d.t.Helper()
	files, err := filepath.Glob(filepath.Join(d.cfg.StateDir, "audit", "*"))
	d.must(err)
	for _, f := range files {
		b, err := os.ReadFile(f)
		d.must(err)
		for line := range bytes.Lines(bytes.TrimRight(b, "\x00")) {
			var r struct{ Session, Event string }
			if json.Unmarshal(line, &r) == nil && r.Session == session && r.Event == event {
				n++
			}
		}
	}
	return n
}

func statusOf(err error) protocol.Status {
	var se *protocol.StatusError
	if errors.As(err, &se) {
		return se.Status
	}
	return protocol.StatusOK
}

// A session at a VMM's socket is served there, survives the broker, and takes its socket with it.
func TestHybridSession(t *testing.T) {
	d := newDesk(t, nil)
	base := filepath.Join(d.dir, "v")
	s, socket := d.hybrid("a", base)
	if i := d.info(s.ID); i.Identity != fmt.Sprintf("the VMM's socket %s, peer uid %d", base, os.Geteuid()) || i.Containment != "no network but torno" {
		t.Errorf("identity %q, containment %q", i.Identity, i.Containment)
	}
	h, err := d.hello(socket, 1)
	d.must(err)
	if h.Isolation != protocol.IsolationMicroVM || len(h.RunToken) != 0 || h.OwnEgress {
		t.Errorf("hello %+v", h)
	}
	var conflict *control.Error
	req := vmOf("b")
	req.Socket = "hybrid://" + base
	if err := d.call("POST", control.PathSessions, req, nil); !errors.As(err, &conflict) || conflict.Code != control.CodeConflict {
		t.Errorf("a second session at the same socket: %v", err)
	}
	d.stop()
	d.start()
	p, err := d.dial(socket, protocol.KindForward, h.Token)
	d.must(err)
	if resp, _, err := p.ask(get("/"), ""); err != nil || resp.Status != 403 {
		t.Errorf("after a restart: %d, %v", resp.Status, err)
	}
	d.must(d.call("DELETE", control.PathSession+s.ID, nil, nil))
	d.gone(base + "_618")
}

// gone waits until there is nothing at path.
func (d *desk) gone(path string) {
	d.t.Helper()
	for range 200 {
		if _, err := os.Lstat(path); errors.Is(err, os.ErrNotExist) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	d.t.Errorf("%s is still there", path)
}

func TestPlaceRefused(t *testing.T) {
	d := newDesk(t, nil)
	for name, change := range map[string]func(*control.SessionRequest){
		"both":                  func(r *control.SessionRequest) { r.Socket, r.CID = "hybrid://"+d.dir+"/v", 5 },
		"not hybrid":            func(r *control.SessionRequest) { r.Socket = "unix://" + d.dir + "/v" },
		"vsock":                 func(r *control.SessionRequest) { r.Socket = "vsock://5:618" },
		"relative":              func(r *control.SessionRequest) { r.Socket = "hybrid://v" },
		"no such directory":     func(r *control.SessionRequest) { r.Socket = "hybrid:///nowhere/at/all/v" },
		"everybody's directory": func(r *control.SessionRequest) { r.Socket = "hybrid:///tmp/torno-test-v" },
		"loopback":              func(r *control.SessionRequest) { r.CID = 1 },
		"the host":              func(r *control.SessionRequest) { r.CID = 2 },
		"any":                   func(r *control.SessionRequest) { r.CID = 1<<32 - 1 },
		"no vsock":              func(r *control.SessionRequest) { r.CID = 5 },
		"nonce of a socket":     func(r *control.SessionRequest) { r.Socket, r.NoBootNonce = "hybrid://"+d.dir+"/v", true },
		"run channel": func(r *control.SessionRequest) {
			r.Socket, r.RunToken = "hybrid://"+d.dir+"/v", make([]byte, protocol.TokenSize)
		},
		"namespace": func(r *control.SessionRequest) {
			r.Socket, r.Isolation = "hybrid://"+d.dir+"/v", protocol.IsolationNamespace
		},
		"attach without a VM":   func(r *control.SessionRequest) { r.Attach, r.Workload.Argv = true, nil },
		"egress without a VM":   func(r *control.SessionRequest) { r.OwnEgress = true },
		"attach with a command": func(r *control.SessionRequest) { r.Socket, r.Attach = "hybrid://"+d.dir+"/v", true },
	} {
		req := vmOf("a")
		change(&req)
		var e *control.Error
		if err := d.call("POST", control.PathSessions, req, nil); !errors.As(err, &e) || e.Code != control.CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	var all []control.SessionInfo
	d.must(d.call("GET", control.PathSessions, nil, &all))
	if len(all) != 0 {
		t.Errorf("%d sessions are left", len(all))
	}
}

func TestWeaknessesAreSaid(t *testing.T) {
	d := newDesk(t, nil)
	req := vmOf("a")
	req.Socket, req.Attach, req.OwnEgress, req.Workload.Argv = "hybrid://"+d.dir+"/v", true, true, nil
	var s control.SessionCreated
	d.must(d.call("POST", control.PathSessions, req, &s))
	if w := strings.Join(s.Warnings, "\n"); !strings.Contains(w, "injection without containment") {
		t.Errorf("warnings %q", w)
	}
	if i := d.info(s.ID); !strings.HasPrefix(i.Containment, "none: injection without containment") || len(i.Weaknesses) != 1 {
		t.Errorf("containment %q, weaknesses %q", i.Containment, i.Weaknesses)
	}
	if h, err := d.hello("unix://"+d.dir+"/v_618", 1); err != nil || !h.OwnEgress {
		t.Errorf("hello %+v, %v", h, err)
	}
}

// A VM is restored from a snapshot of another, at a socket of its own: it presents the other's token. It gets
// nothing, its session ends, the other goes on, and the audit says so.
func TestAttack3Clone(t *testing.T) {
	d := newDesk(t, nil)
	a, socketA := d.hybrid("a", filepath.Join(d.dir, "a"))
	b, socketB := d.hybrid("a", filepath.Join(d.dir, "b"))
	h, err := d.hello(socketA, 1)
	d.must(err)
	_, err = d.dial(socketA, protocol.KindForward, h.Token)
	d.must(err)
	// The control: a token that is nobody's is refused and ends nothing.
	if _, err := d.dial(socketB, protocol.KindForward, bytes.Repeat([]byte{7}, protocol.TokenSize)); statusOf(err) != protocol.StatusToken {
		t.Errorf("nobody's token: %v", err)
	}
	if got := d.info(b.ID).State; got != "waiting" {
		t.Fatalf("nobody's token makes the session %s", got)
	}
	if _, err := d.dial(socketB, protocol.KindForward, h.Token); statusOf(err) != protocol.StatusToken {
		t.Errorf("a clone's stream: %v, want status %v", err, protocol.StatusToken)
	}
	d.gone(filepath.Join(d.dir, "b_618"))
	if got := d.info(b.ID).State; got != "ended" {
		t.Errorf("the session of the clone is %s", got)
	}
	if _, err := d.dial(socketA, protocol.KindForward, h.Token); err != nil || d.info(a.ID).State != "live" {
		t.Errorf("the other session: %v, %s", err, d.info(a.ID).State)
	}
	if n, m := d.events(b.ID, "foreign_token"), d.events(b.ID, "stream_refused"); n != 1 || m != 1 {
		t.Errorf("%d records of the foreign token and %d of nobody's, want 1 and 1", n, m)
	}
}

// A VM that comes where another was, at its socket or its CID, inherits neither its session while that
// lives nor afterwards.
func TestAttack5ReusedPlace(t *testing.T) {
	machines := &vmListener{conns: make(chan net.Conn), done: make(chan struct{})}
	d := newVSOCKDesk(t, machines)
	base := filepath.Join(d.dir, "v")
	byCID := vmOf("a")
	byCID.CID, byCID.NoBootNonce = 7, true
	bySocket := vmOf("a")
	bySocket.Socket = "hybrid://" + base
	for name, place := range map[string]struct {
		req  control.SessionRequest
		dial func(kind protocol.Kind, token []byte) (*peer, error)
	}{
		"socket": {bySocket, func(kind protocol.Kind, token []byte) (*peer, error) {
			return d.dial("unix://"+base+"_618", kind, token)
		}},
		"CID": {byCID, func(kind protocol.Kind, token []byte) (*peer, error) {
			return d.open(machines.dial(7, 900), kind, token)
		}},
	} {
		var dead, next control.SessionCreated
		d.must(d.call("POST", control.PathSessions, place.req, &dead))
		p, err := place.dial(protocol.KindHello, nil)
		d.must(err)
		old, err := p.hello(1, nil)
		d.must(err)
		p, err = place.dial(protocol.KindForward, old.Token)
		d.must(err)
		p.Close() // the VM dies
		if _, err := place.dial(protocol.KindHello, nil); statusOf(err) != protocol.StatusHelloUsed {
			t.Errorf("%s: hello of the next VM while the session lives: %v", name, err)
		}
		if err := d.call("POST", control.PathSessions, place.req, nil); err == nil {
			t.Errorf("%s: a session was made where another lives", name)
		}
		d.must(d.call("POST", control.PathSession+dead.ID+"/end", nil, nil))
		for range 200 { // the place is free once all that was open is closed
			if err = d.call("POST", control.PathSessions, place.req, &next); err == nil {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		d.must(err)
		if _, err := place.dial(protocol.KindForward, old.Token); statusOf(err) != protocol.StatusToken {
			t.Errorf("%s: the dead session's token: %v", name, err)
		}
		p, err = place.dial(protocol.KindHello, nil)
		d.must(err)
		h, err := p.hello(1, nil) // even with the dead VM's nonce
		d.must(err)
		if h.Session != next.ID || bytes.Equal(h.Token, old.Token) || h.CA == old.CA {
			t.Errorf("%s: the next session is %s with token and CA of the dead one: %v, %v", name, h.Session, bytes.Equal(h.Token, old.Token), h.CA == old.CA)
		}
	}
}

// A vmListener stands in for the kernel's vsock: its connections come from the addresses that dial is given.
type vmListener struct {
	conns chan net.Conn
	done  chan struct{}
}

func (l *vmListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *vmListener) Close() error {
	select {
	case <-l.done:
	default:
		close(l.done)
	}
	return nil
}

func (l *vmListener) Addr() net.Addr { return &vsock.Addr{ContextID: 2, Port: protocol.BrokerPort} }

// A vmConn is the host's end of a connection from a VM.
type vmConn struct {
	net.Conn
	from vsock.Addr
}

func (c *vmConn) RemoteAddr() net.Addr { return &c.from }

// dial connects as a VM's program does.
func (l *vmListener) dial(cid, port uint32) net.Conn {
	guest, host := net.Pipe()
	select {
	case l.conns <- &vmConn{host, vsock.Addr{ContextID: cid, Port: port}}:
	case <-time.After(10 * time.Second):
		guest.Close()
	}
	return guest
}

// newVSOCKDesk is newDesk with a broker that listens on vsock.
func newVSOCKDesk(t *testing.T, machines *vmListener) *desk {
	d := newDesk(t, nil)
	d.stop()
	d.cfg.Operator.Listen = "vsock://2:618"
	d.cfg.listenVSOCK = func(a transport.Addr, port uint32) (net.Listener, error) {
		if a.Network != transport.VSOCK || a.CID != 2 || port != 618 {
			return nil, fmt.Errorf("listening on %v, port %d", a, port)
		}
		return transport.Guests(machines), nil
	}
	d.start()
	return d
}

// Identity is the CID that the kernel tells, with the boot nonce that the VM alone was given: no other CID, no
// port without privilege, not the host itself, and nobody who came first without the nonce.
func TestVSOCKIdentity(t *testing.T) {
	machines := &vmListener{conns: make(chan net.Conn), done: make(chan struct{})}
	d := newVSOCKDesk(t, machines)
	req := vmOf("a")
	req.CID = 42
	var s control.SessionCreated
	d.must(d.call("POST", control.PathSessions, req, &s))
	if s.Broker != "vsock://2:618" || len(s.Boot) != protocol.NonceSize || d.info(s.ID).Identity != "CID 42 and a boot nonce" {
		t.Fatalf("registered %q with %d bytes of nonce, identity %q", s.Broker, len(s.Boot), d.info(s.ID).Identity)
	}
	var conflict *control.Error
	if err := d.call("POST", control.PathSessions, req, nil); !errors.As(err, &conflict) || conflict.Code != control.CodeConflict {
		t.Errorf("the same CID twice: %v", err)
	}
	for _, from := range []struct {
		cid, port uint32
		want      protocol.Status // OK: closed unseen
	}{{43, 900, protocol.StatusNoSession}, {42, 1024, 0}, {1, 900, 0}, {2, 900, 0}, {0, 900, 0}} {
		_, err := d.open(machines.dial(from.cid, from.port), protocol.KindHello, nil)
		if err == nil || statusOf(err) != from.want {
			t.Errorf("CID %d, port %d: %v, want status %v", from.cid, from.port, err, from.want)
		}
	}
	hello := func(boot []byte) (protocol.HelloResponse, error) {
		p, err := d.open(machines.dial(42, 900), protocol.KindHello, nil)
		d.must(err)
		return p.hello(1, boot)
	}
	for name, boot := range map[string][]byte{"no nonce": nil, "another": bytes.Repeat([]byte{1}, protocol.NonceSize), "half": s.Boot[:16]} {
		if h, err := hello(boot); err == nil || len(h.Token) > 0 {
			t.Errorf("%s: hello is answered", name)
		}
	}
	d.stop() // the next broker knows the nonce too, and nobody reads it from the disk
	d.start2(machines)
	if h, err := hello(s.Boot); err != nil || h.Session != s.ID {
		t.Errorf("hello with the nonce: %v", err)
	}
	if n := d.events(s.ID, "hello_refused"); n != 3 {
		t.Errorf("%d records of refused hellos, want 3", n)
	}
}

// start2 starts the next broker with a new listener in the place of the closed one.
func (d *desk) start2(machines *vmListener) {
	machines.done = make(chan struct{})
	d.start()
}

func TestVSOCKWithoutNonce(t *testing.T) {
	machines := &vmListener{conns: make(chan net.Conn), done: make(chan struct{})}
	d := newVSOCKDesk(t, machines)
	req := vmOf("a")
	req.CID, req.NoBootNonce = 42, true
	var s control.SessionCreated
	d.must(d.call("POST", control.PathSessions, req, &s))
	if w := strings.Join(s.Warnings, "\n"); len(s.Boot) != 0 || !strings.Contains(w, "identity: CID only") {
		t.Errorf("%d bytes of nonce, warnings %q", len(s.Boot), w)
	}
	if i := d.info(s.ID); i.Identity != "CID only: 42, without a boot nonce" {
		t.Errorf("identity %q", i.Identity)
	}
	p, err := d.open(machines.dial(42, 1), protocol.KindHello, nil)
	d.must(err)
	if h, err := p.hello(1, nil); err != nil || h.Session != s.ID {
		t.Errorf("hello: %v", err)
	}
}

// A broker that ends when it is idle stays for a VM that has not come yet: nobody would start another for it.
func TestIdleWaitsForVMs(t *testing.T) {
	d := newDesk(t, nil)
	d.stop()
	d.cfg.IdleExit = 100 * time.Millisecond
	d.start()
	s, socket := d.hybrid("a", filepath.Join(d.dir, "v"))
	time.Sleep(10 * d.cfg.IdleExit)
	if _, err := d.hello(socket, 1); err != nil {
		t.Fatalf("after ten times the idle time: %v", err)
	}
	d.must(d.call("DELETE", control.PathSession+s.ID, nil, nil))
	d.gone(filepath.Join(d.cfg.RuntimeDir, control.SocketName)) // the control: then it ends
}

// The body that images/README.md shows registers a VM.
func TestImagesREADMEBody(t *testing.T) {
	page, err := os.ReadFile("../images/README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, body, _ := strings.Cut(string(page), "```json\n")
	body, _, ok := strings.Cut(body, "```")
	if !ok {
		t.Fatal("no body")
	}
	d := newVSOCKDesk(t, &vmListener{conns: make(chan net.Conn), done: make(chan struct{})})
	var s control.SessionCreated
	d.must(d.call("POST", control.PathSessions, json.RawMessage(body), &s))
	if len(s.Boot) != protocol.NonceSize || s.Broker != "vsock://2:618" {
		t.Errorf("%+v", s)
	}
}

// TestAttack39SocketIsGiven gives a socket to a user who could write to its directory: links to what is somebody else's stay
// theirs.
func TestAttack39SocketIsGiven(t *testing.T) {
	dir := t.TempDir()
	place := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"own", "linked"} {
		ln, err := net.Listen("unix", place(name))
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
	}
	err := errors.Join(os.WriteFile(place("file"), nil, 0o600), os.Link(place("linked"), place("hard")), os.Symlink(place("own"), place("symbolic")))
	if err != nil {
		t.Fatal(err)
	}
	uid := uint32(os.Geteuid())
	if err := giveSocket(place("own"), uid); err != nil {
		t.Errorf("the control: %v", err)
	}
	for _, name := range []string{"file", "linked", "hard", "symbolic", "nothing"} {
		if giveSocket(place(name), uid) == nil {
			t.Errorf("%s was given away", name)
		}
	}
}
