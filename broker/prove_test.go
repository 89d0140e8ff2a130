package broker

import (
	"bufio"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// memory returns a memfd of a mebibyte with pieces in it.
func memory(t *testing.T, pieces ...string) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("memory", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "memory")
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(1 << 20); err != nil {
		t.Fatal(err)
	}
	for i, p := range pieces {
		if _, err := f.WriteAt([]byte(p), int64(i)*64<<10+100); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// prove asks for a proof as torno run does. files go beside the request.
func (d *desk) prove(id string, files ...*os.File) (control.Proof, error) {
	d.t.Helper()
	c, err := net.Dial("unix", filepath.Join(d.cfg.RuntimeDir, control.SocketName))
	if err != nil {
		d.t.Fatal(err)
	}
	defer c.Close()
	var oob []byte
	for _, f := range files {
		oob = append(oob, unix.UnixRights(int(f.Fd()))...)
	}
	request := "POST " + control.PathSession + id + "/prove HTTP/1.1\r\nHost: torno\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
	if _, _, err := c.(*net.UnixConn).WriteMsgUnix([]byte(request), oob, nil); err != nil {
		d.t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		var e control.Error
		if err := json.NewDecoder(resp.Body).Decode(&e); err != nil {
			d.t.Fatal(err)
		}
		return control.Proof{}, &e
	}
	var p control.Proof
	return p, json.NewDecoder(resp.Body).Decode(&p)
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// vmSession registers a session of a VM, and returns it with its CA's certificate.
func vmSession(t *testing.T, d *desk) (id, ca string) {
	t.Helper()
	req := control.SessionRequest{Agent: "my-agent", Isolation: protocol.IsolationMicroVM, Workload: protocol.Workload{Argv: []string{"true"}}}
	var created control.SessionCreated
	if err := d.call("POST", control.PathSessions, req, &created); err != nil {
		t.Fatal(err)
	}
	hello, err := d.hello(created.Broker, 1)
	d.must(err)
	return created.ID, hello.CA
}

// Attack 47: who shows the broker a memory of their own making learns one bit, and only once.
func TestAttack47ProofIsNoOracle(t *testing.T) {
	d := newDesk(t, nil)
	d.must(d.set("my-agent", "API_KEY", testKey, 1))
	id, ca := vmSession(t, d)

	clean, err := d.prove(id, memory(t, ca, "nothing of interest"))
	if err != nil || clean.Outcome != control.ProofClean || !clean.Control || clean.Secrets != 1 {
		t.Fatalf("clean memory: %+v, %v", clean, err)
	}
	if p, err := d.prove(id, memory(t, "nothing")); err != nil || p.Outcome != control.ProofNoControl {
		t.Errorf("memory without the control: %+v, %v", p, err)
	}
	one, err := d.prove(id, memory(t, ca, testKey[10:24]))
	if err != nil || one.Outcome != control.ProofLeak {
		t.Fatalf("memory with a run: %+v, %v", one, err)
	}
	many, err := d.prove(id, memory(t, ca, testKey[10:24], testKey[4:20], testKey))
	one.Seconds, many.Seconds = 0, 0
	one.Present, many.Present, one.Zero, many.Zero = 0, 0, 0, 0
	if err != nil || many != one {
		t.Errorf("one run gives %+v, three give %+v (%v): how many there are shows", one, many, err)
	}
	if b, _ := json.Marshal(many); strings.Contains(string(b), testKey[10:20]) {
		t.Error("the answer repeats the secret")
	}
	var info control.SessionInfo
	d.must(d.call("GET", control.PathSession+id, nil, &info))
	if info.State != "suspended" {
		t.Errorf("after a leak the session is %q", info.State)
	}
	for range proofsPerMinute {
		_, err = d.prove(id, memory(t, ca))
	}
	var e *control.Error
	if !errors.As(err, &e) || e.Code != control.CodeBusy {
		t.Errorf("the %dth search within a minute: %v", proofsPerMinute+4, err)
	}
	other, _ := vmSession(t, d) // a new session is no way around
	if _, err := d.prove(other, memory(t, ca)); !errors.As(err, &e) || e.Code != control.CodeBusy {
		t.Errorf("by another session: %v", err)
	}
}

// Secrets that are too short for the guarantee are not looked for: a search would tell who guesses.
func TestAttack47WeakSecrets(t *testing.T) {
	const weak = "hunter2hunter2x" // 15 bytes
	d := newDesk(t, nil)
	d.must(d.set("my-agent", "API_KEY", weak, 1))
	id, ca := vmSession(t, d)
	p, err := d.prove(id, memory(t, ca, weak))
	if err != nil || p.Outcome != control.ProofClean || p.Secrets != 0 || p.Weak != 1 || !p.Control {
		t.Errorf("%+v, %v; want nothing to be found of a weak secret", p, err)
	}
	d.must(d.set("my-agent", "API_KEY", weak+"y-and-more-of-it", 2)) // the control: one that is longer is found
	id, ca = vmSession(t, d)
	if p, err := d.prove(id, memory(t, ca, weak+"y-and-more-of-it")); err != nil || p.Outcome != control.ProofLeak {
		t.Errorf("a longer one: %+v, %v", p, err)
	}
}

// What is no memory of a VM of one's own is refused, and no descriptor stays behind.
func TestAttack47WhatIsNoMemory(t *testing.T) {
	d := newDesk(t, nil)
	d.must(d.set("my-agent", "API_KEY", testKey, 1))
	id, ca := vmSession(t, d)
	file, err := os.CreateTemp(t.TempDir(), "x")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	before := openFiles(t)
	for name, files := range map[string][]*os.File{"nothing": nil, "a file": {file}, "a device": {null}} {
		if p, err := d.prove(id, files...); err == nil {
			t.Errorf("%s: %+v", name, p)
		}
	}
	if _, err := d.prove("no-such-session", memory(t, ca)); err == nil {
		t.Error("no session, and an answer")
	}
	var e *control.Error
	namespace := control.SessionRequest{Agent: "my-agent", Isolation: protocol.IsolationNamespace, Workload: protocol.Workload{Argv: []string{"true"}}}
	var created control.SessionCreated
	if err := d.call("POST", control.PathSessions, namespace, &created); err != nil {
		t.Fatal(err)
	}
	if _, err := d.prove(created.ID, memory(t, ca)); !errors.As(err, &e) || e.Code != control.CodeInvalid {
		t.Errorf("a session without memory of its own: %v", err)
	}
	d.stop()
	d.start() // knows no more who registered the session
	if _, err := d.prove(id, memory(t, ca)); !errors.As(err, &e) || e.Code != control.CodeConflict {
		t.Errorf("asked by who did not register the session: %v", err)
	}
	d.stop()
	if after := openFiles(t); after > before+8 { // memories of this test are open until its end
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}
