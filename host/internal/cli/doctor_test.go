package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"torno.internal/host/internal/doctor"
	"torno.internal/protocol/control"
)

// examine runs the command and returns what it found, by check.
func examine(t *testing.T, args ...string) (map[string]doctor.Finding, int) {
	t.Helper()
	r := torno(t, "", append([]string{"doctor", "--json"}, args...)...)
	var all []doctor.Finding
	if err := json.Unmarshal([]byte(r.out), &all); err != nil {
		t.Fatalf("%v: %+v", err, r)
	}
	by := map[string]doctor.Finding{}
	for _, f := range all {
		by[f.Check] = f
		if f.Why == "" || f.Detail == "" || f.State == doctor.StateFail && f.Hint == "" {
			t.Errorf("%+v does not say what, why and what to do", f)
		}
	}
	return by, r.code
}

// found wants a finding to have a state, and a word in its detail or hint.
func found(t *testing.T, f doctor.Finding, state, word string) {
	t.Helper()
	if f.State != state || !strings.Contains(f.Detail+" "+f.Hint, word) {
		t.Errorf("%+v, want %s with %q", f, state, word)
	}
}

func TestDoctor(t *testing.T) {
	b := newBroker(t)
	t.Setenv("TORNO_IMAGES", t.TempDir())
	f, _ := examine(t)
	for _, name := range []string{"kernel", "clock", "namespaces", "state", "store", "sockets", "broker.toml", "sessions", "ca", "proxy", "upstreams", "agent file"} {
		found(t, f[name], doctor.StateOK, "")
	}
	found(t, f["broker"], doctor.StateWarn, "restart torno serve") // the fake is of another version
	found(t, f["images"], doctor.StateWarn, "torno image build")
	if err := os.Mkdir(b.state, 0o755); err != nil {
		t.Fatal(err)
	}
	f, code := examine(t)
	if found(t, f["state"], doctor.StateFail, "chmod 700 "+b.state); code != 1 {
		t.Errorf("exit %d", code)
	}
	f, _ = examine(t, "--fix")
	if found(t, f["state"], doctor.StateFixed, b.state); f["state"].Fixed != "chmod 700 "+b.state {
		t.Errorf("%+v", f["state"])
	}
	if f, _ = examine(t); f["state"].State != doctor.StateOK {
		t.Errorf("after mending: %+v", f["state"])
	}
	t.Setenv("TORNO_STATE", filepath.Join(b.state, "other"))
	f, _ = examine(t)
	found(t, f["broker"], doctor.StateFail, "keeps its state in")
}

// What a person reads of a warning has all that the JSON has.
func TestDoctorText(t *testing.T) {
	b := newBroker(t)
	t.Setenv("TORNO_IMAGES", t.TempDir())
	if err := os.Mkdir(b.state, 0o755); err != nil {
		t.Fatal(err)
	}
	r := torno(t, "", "doctor", "--offline")
	for _, want := range []string{"\nfail   state        others can reach " + b.state + "\n" + strings.Repeat(" ", 20) + "why: whoever reaches it", "hint: chmod 700 " + b.state + ", or torno doctor --fix\n", "\nok     upstreams    not called (--offline)\n"} {
		if !strings.Contains(r.out, want) {
			t.Errorf("%q is not in\n%s", want, r.out)
		}
	}
	if r = torno(t, "", "doctor", "--fix"); !strings.Contains(r.out, "\nfixed  state        "+b.state+"\n"+strings.Repeat(" ", 20)+"did: chmod 700 "+b.state) {
		t.Errorf("%s", r.out)
	}
}

func TestDoctorSockets(t *testing.T) {
	dir := places(t)
	path := filepath.Join(dir, "torno", control.SocketName)
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	ln.Close()
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	d := &diagnosis{}
	found(t, d.sockets(t.Context()), doctor.StateWarn, "nobody listens")
	os.Remove(path)
	found(t, d.sockets(t.Context()), doctor.StateOK, "no broker")
}

// A store without its key, one whose key is locked, and one that a process holds which does not answer.
func TestDoctorStore(t *testing.T) {
	dir := places(t)
	state := filepath.Join(dir, "state")
	t.Setenv("TORNO_STATE", state)
	d := &diagnosis{}
	found(t, d.store(t.Context()), doctor.StateOK, "none yet")
	put := func(name, content string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(state, 0o700), os.WriteFile(filepath.Join(state, name), []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	put("store.db", "x")
	found(t, d.store(t.Context()), doctor.StateFail, "torno key recover")
	put("key", "nonsense")
	found(t, d.store(t.Context()), doctor.StateFail, "torno store restore")
	put("lock", fmt.Sprintf("%d\n", os.Getpid()))
	lock, err := os.OpenFile(filepath.Join(state, "lock"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if pid := lockHolder(lock.Name()); pid != 0 {
		t.Errorf("nobody holds the lock, and %d does", pid)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if pid := lockHolder(lock.Name()); pid != os.Getpid() {
		t.Errorf("%d holds the lock, not %d", pid, os.Getpid())
	}
}

func TestDoctorOperatorFile(t *testing.T) {
	dir := places(t)
	state := filepath.Join(dir, "state")
	t.Setenv("TORNO_STATE", state)
	write := func(text string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(state, 0o700), os.WriteFile(filepath.Join(state, "broker.toml"), []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	d := &diagnosis{}
	found(t, d.operatorFile(t.Context()), doctor.StateOK, "none")
	write("egres = 1\n")
	found(t, d.operatorFile(t.Context()), doctor.StateFail, `did you mean "egress"`)
	found(t, d.proxy(t.Context()), doctor.StateWarn, "can't be read")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	write("[egress]\nproxy = \"http://" + ln.Addr().String() + "\"\n")
	found(t, d.operatorFile(t.Context()), doctor.StateOK, "broker.toml")
	found(t, d.proxy(t.Context()), doctor.StateOK, "answers")
	found(t, d.upstreams(t.Context()), doctor.StateOK, "behind the proxy")
	ln.Close()
	found(t, d.proxy(t.Context()), doctor.StateFail, "does not answer")
	found(t, (&diagnosis{offline: true}).proxy(t.Context()), doctor.StateOK, "--offline")
	write("[egress]\nca = [\"none.pem\"]\n")
	found(t, d.ca(t.Context()), doctor.StateFail, "none.pem")
	write("listen = \"vsock://2:618\"\n")
	d.vhost = filepath.Join(dir, "vhost-vsock")
	found(t, d.vhostVSOCK(t.Context()), doctor.StateFail, "modprobe")
	write("")
	found(t, d.vhostVSOCK(t.Context()), doctor.StateOK, "not needed")
	found(t, d.ca(t.Context()), doctor.StateOK, "system")
}

// The hosts that secrets are bound to are called as broker.toml says; nobody is there.
func TestDoctorUpstreams(t *testing.T) {
	b := newBroker(t)
	if err := errors.Join(os.MkdirAll(b.state, 0o700), os.WriteFile(filepath.Join(b.state, "broker.toml"),
		[]byte("[[upstream]]\nhost = \"api.acme.example\"\ndial = \"127.0.0.1:1\"\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, audience := range [][]string{{"https://api.acme.example"}, {"https://api.acme.example", "http://plain.example", "https://*.wild.example"}} {
		b.metas = append(b.metas, control.Meta{Agent: "a", Name: "ACME", Version: 1, Audience: audience})
	}
	d := &diagnosis{}
	found(t, d.upstreams(t.Context()), doctor.StateWarn, "1 of 1 can't be used; api.acme.example")
	found(t, (&diagnosis{offline: true}).upstreams(t.Context()), doctor.StateOK, "not called")
}

func TestDoctorAgentFile(t *testing.T) {
	b := newBroker(t)
	t.Chdir(t.TempDir())
	d := &diagnosis{}
	found(t, d.agentFile(t.Context()), doctor.StateOK, "none")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile("torno.toml", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("name = 1\n")
	found(t, d.agentFile(t.Context()), doctor.StateFail, "torno.toml")
	write("name = \"a\"\n")
	found(t, d.agentFile(t.Context()), doctor.StateWarn, "torno trust")
	b.trusted["a"] = control.TrustedFile{Agent: "a", File: []byte("name = \"a\"\n")}
	found(t, d.agentFile(t.Context()), doctor.StateOK, "approved")
}

// Another guest's build, one that does not run, and none.
func TestDoctorGuest(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	put := func(script string) {
		t.Helper()
		path := filepath.Join(dir, guestName)
		if err := errors.Join(os.WriteFile(path+".new", []byte("#!/bin/sh\n"+script+"\n"), 0o755), os.Rename(path+".new", path)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond) // for whoever forked while the script was open
	}
	d := &diagnosis{version: "v1"}
	put("echo torno-guest v1")
	found(t, d.guest(t.Context()), doctor.StateOK, "v1")
	put("echo torno-guest v2")
	found(t, d.guest(t.Context()), doctor.StateWarn, "of one build")
	put("exit 3")
	found(t, d.guest(t.Context()), doctor.StateFail, "does not run")
	t.Setenv("PATH", t.TempDir())
	found(t, d.guest(t.Context()), doctor.StateFail, "not there")
}

// Without QEMU there is less, and what is no QEMU is said.
func TestDoctorQEMU(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	d := &diagnosis{}
	found(t, d.qemu(t.Context()), doctor.StateWarn, "--isolation namespace")
	path := filepath.Join(dir, "qemu-system-x86_64")
	if err := os.WriteFile(path, []byte("#!/bin/sh\necho QEMU emulator version 7.2\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	found(t, d.qemu(t.Context()), doctor.StateOK, "version 7.2")
	if err := os.WriteFile(path, []byte("#!/bin/sh\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	found(t, d.qemu(t.Context()), doctor.StateFail, "whole")
}

// A damaged image is said, one that is not there is built by the first VM.
func TestDoctorImages(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TORNO_IMAGES", dir)
	d := &diagnosis{}
	found(t, d.images(t.Context()), doctor.StateWarn, "no kernel")
	found(t, d.disk(t.Context()), doctor.StateOK, "for images")
}
