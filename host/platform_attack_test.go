package main_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/bhttp"
)

// The attacks of machines that come where they should not. A VMM brings its guest's connection to port 618 to
// the socket BASE_618; here the connection is made as a VMM makes it, and what the guest says is written by
// hand.

// vmSession registers a session at dir/v by the command, and returns its id.
func (h *house) vmSession(dir string) string {
	h.t.Helper()
	return h.vmConfigFor("firecracker", dir, "--uid", fmt.Sprint(os.Geteuid()), "--", "true").Session
}

// guestDial opens a stream as the guest of the VM at dir/v; its error is that of the preface.
func (h *house) guestDial(dir string, kind protocol.Kind, token []byte) (net.Conn, error) {
	h.t.Helper()
	c, err := net.Dial("unix", filepath.Join(dir, "v_618"))
	if err != nil {
		return nil, err
	}
	h.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	preface := protocol.Preface{Version: protocol.Version, Kind: kind}
	copy(preface.Token[:], token)
	if _, err := c.Write(preface.AppendTo(nil)); err != nil {
		return nil, err
	}
	return c, protocol.ReadPrefaceReply(c)
}

// guestHello says hello as the guest of the VM at dir/v.
func (h *house) guestHello(dir string, nonce byte) (hello protocol.HelloResponse, err error) {
	h.t.Helper()
	c, err := h.guestDial(dir, protocol.KindHello, nil)
	if err != nil {
		return hello, err
	}
	defer c.Close()
	w, r := bhttp.NewWriter(c), bhttp.NewReader(c)
	body, err := json.Marshal(protocol.HelloRequest{Nonce: bytes.Repeat([]byte{nonce}, protocol.NonceSize), Guest: "test"})
	if err != nil {
		return hello, err
	}
	req := protocol.Request{Method: "POST", Scheme: protocol.Scheme, Authority: protocol.BrokerAuthority, Path: protocol.PathHello}
	if err := w.WriteRequest(&req); err != nil {
		return hello, err
	}
	if _, err := w.Write(body); err != nil {
		return hello, err
	}
	var resp protocol.Response
	if err := errors.Join(w.Close(nil), r.ReadResponse(&resp)); err != nil {
		return hello, err
	}
	answer, err := io.ReadAll(r)
	if err == nil && resp.Status != 200 {
		err = fmt.Errorf("status %d, %s", resp.Status, resp.Fields.Get(protocol.FieldReason))
	}
	if err != nil {
		return hello, err
	}
	return hello, json.Unmarshal(answer, &hello)
}

// wants reports an error that is not of that preface status.
func wants(t *testing.T, what string, err error, want protocol.Status) {
	t.Helper()
	var status *protocol.StatusError
	if !errors.As(err, &status) || status.Status != want {
		t.Errorf("%s: %v, want %q", what, err, want)
	}
}

// state returns a session's state.
func (h *house) state(id string) string {
	h.t.Helper()
	var i struct {
		State string `json:"state"`
	}
	if err := json.Unmarshal([]byte(h.must("sessions", "show", "--json", id)), &i); err != nil {
		h.t.Fatal(err)
	}
	return i.State
}

// Attack 3: a second hello, a hello that is replayed, the token of another session, a clone of a VM that was
// restored from a snapshot. Each is refused and recorded.
func TestAttack3OtherVMs(t *testing.T) {
	h := newPlatform(t)
	a, b := h.dir+"/a", h.dir+"/b"
	for _, dir := range []string{a, b} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	idA, idB := h.vmSession(a), h.vmSession(b)
	hello, err := h.guestHello(a, 1)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := h.guestHello(a, 1); err != nil || !bytes.Equal(again.Token, hello.Token) {
		t.Errorf("a hello whose answer was lost: %v", err) // the control: it may be repeated
	}
	if second, err := h.guestHello(a, 2); err == nil {
		t.Errorf("a second guest's hello is answered: %+v", second.Session)
	}
	if _, err := h.guestDial(a, protocol.KindForward, hello.Token); err != nil {
		t.Fatalf("the token: %v", err)
	}
	_, err = h.guestHello(a, 1)
	wants(t, "the hello replayed once its token was used", err, protocol.StatusHelloUsed)
	_, err = h.guestDial(a, protocol.KindForward, bytes.Repeat([]byte{9}, protocol.TokenSize))
	wants(t, "a token that is nobody's", err, protocol.StatusToken)

	_, err = h.guestDial(b, protocol.KindForward, hello.Token)
	wants(t, "a clone at a socket of its own", err, protocol.StatusToken)
	for deadline := time.Now().Add(patience); h.state(idB) != "ended"; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the session of the clone is %s", h.state(idB))
		}
	}
	if _, err := h.guestHello(b, 3); err == nil {
		t.Error("the clone says hello after all")
	}
	if _, err := h.guestDial(a, protocol.KindForward, hello.Token); err != nil || h.state(idA) != "live" {
		t.Errorf("the VM that was copied: %v, %s", err, h.state(idA))
	}
	audit := h.must("audit", "tail", "--json", "--last", "50")
	for event, want := range map[string]int{"hello_refused": 1, "stream_refused": 2, "foreign_token": 1} {
		if n := strings.Count(audit, `"event":"`+event+`"`); n != want {
			t.Errorf("%d records of %s, want %d:\n%s", n, event, want, audit)
		}
	}
}

// Attack 5: a new VM at a socket path where another was does not inherit its session, neither while that lives
// nor when it has ended.
func TestAttack5ReusedSocket(t *testing.T) {
	h := newPlatform(t)
	dir := h.dir + "/a"
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	dead := h.vmSession(dir)
	old, err := h.guestHello(dir, 1)
	if err != nil {
		t.Fatal(err)
	}
	c, err := h.guestDial(dir, protocol.KindForward, old.Token)
	if err != nil {
		t.Fatal(err)
	}
	c.Close() // the VM dies, and another is started in its place
	_, err = h.guestHello(dir, 2)
	wants(t, "hello of the next VM", err, protocol.StatusHelloUsed)
	_, err = h.guestDial(dir, protocol.KindForward, nil)
	wants(t, "a stream of the next VM", err, protocol.StatusToken)
	r := h.torno("vm", "config", "firecracker", "--agent", "my-agent", "--socket", dir+"/v", "--trust-config", "--", "true")
	if r.code != 1 || r.stdout != "" || !strings.Contains(r.stderr, "hint: each VM needs a socket of its own") {
		t.Errorf("another session there: exit %d, %q, %q", r.code, r.stdout, r.stderr)
	}
	h.must("sessions", "revoke", dead)
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		if _, err := os.Lstat(dir + "/v_618"); err != nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the dead session's socket stays")
		}
	}
	next := h.vmSession(dir)
	_, err = h.guestDial(dir, protocol.KindForward, old.Token)
	wants(t, "the dead VM's token", err, protocol.StatusToken)
	hello, err := h.guestHello(dir, 1)
	if err != nil || hello.Session != next || bytes.Equal(hello.Token, old.Token) || hello.CA == old.CA {
		t.Errorf("the next VM's hello: %v, session %s, want %s", err, hello.Session, next)
	}
}

// Attack 39: somebody else's socket, or a link, stands where the VMM's belongs; the directory is everybody's;
// somebody who is not the VMM's user connects, even root.
func TestAttack39VMMSocket(t *testing.T) {
	h := newPlatform(t)
	squat := func(dir string) error {
		l, err := net.Listen("unix", dir+"/v_618")
		if err == nil {
			t.Cleanup(func() { l.Close() })
		}
		return err
	}
	for name, c := range map[string]struct {
		prepare func(dir string) error
		want    string
	}{
		"squatter": {squat, "a socket of somebody else"},
		"squatting VMM": {func(dir string) error {
			return errors.Join(squat(dir), os.Chown(dir+"/v_618", vmmUser, vmmUser))
		}, "somebody listens there already"},
		"link":                  {func(dir string) error { return os.Symlink("/etc/passwd", dir+"/v_618") }, "not a socket"},
		"everybody's directory": {func(dir string) error { return os.Chmod(dir, 0o777) }, "can be written to by others"},
		"no directory":          {os.Remove, "no such file or directory"},
	} {
		dir := h.vmmDir(strings.ReplaceAll(name, " ", "-"))
		if err := c.prepare(dir); err != nil {
			t.Fatal(err)
		}
		r := h.torno("vm", "config", "firecracker", "--agent", "my-agent", "--socket", dir+"/v", "--uid", fmt.Sprint(vmmUser), "--trust-config", "--", "true")
		if r.code != 1 || !strings.Contains(r.stderr, c.want) || !strings.Contains(r.stderr, "\nhint: ") || r.stdout != "" {
			t.Errorf("%s: exit %d, %q, %q", name, r.code, r.stdout, r.stderr)
		}
	}
	if out := h.must("sessions", "list"); strings.Contains(out, "waiting") {
		t.Errorf("sessions are left:\n%s", out)
	}
	dir := h.vmmDir("good")
	h.vmConfig("firecracker", dir, "--", "true")
	if _, err := h.guestDial(dir, protocol.KindHello, nil); err == nil {
		t.Error("root speaks for the VMM of another user")
	}
}
