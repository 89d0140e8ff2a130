package main_test

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"torno.internal/images/initramfs"
	"torno.internal/images/kernel"
	"torno.internal/images/rootfs"
)

// An ownImage is a root file system and a kernel as a platform has them: the kernel loads its drivers, mounts the
// root and starts what init= names. Files are put into the root.
type ownImage struct{ rootfs, kernel, initrd string }

// newOwnImage makes one of the base image, with the guest at /sbin/torno-guest and more files, by path.
func (h *house) newOwnImage(more map[string]string) ownImage {
	h.t.Helper()
	return h.newOwnImageOf(rootfs.Base, more)
}

// newOwnImageOf is newOwnImage of an image by name.
func (h *house) newOwnImageOf(name string, more map[string]string) ownImage {
	h.t.Helper()
	place, err := rootfs.Place()
	if err != nil {
		h.t.Fatal(err)
	}
	image, err := rootfs.Store{Dir: place}.Open(name)
	if err != nil {
		h.t.Fatal(err)
	}
	k, err := kernel.Store{Dir: filepath.Join(place, ".kernels")}.Open("")
	if err != nil {
		h.t.Fatal(err)
	}
	init := filepath.Join(h.dir, "init")
	build := exec.Command("go", "build", "-trimpath", "-o", init, "./testdata/init")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		h.t.Fatalf("%v\n%s", err, out)
	}
	files := []initramfs.File{{Name: "torno", Mode: initramfs.Directory | 0o755}}
	for _, dir := range directories("payload/sbin/torno-guest", "payload", more) {
		files = append(files, initramfs.File{Name: dir, Mode: initramfs.Directory | 0o755})
	}
	add := func(name string, mode uint32, data []byte) {
		files = append(files, initramfs.File{Name: name, Mode: initramfs.Regular | mode, Data: data})
	}
	for name, from := range map[string]string{"init": init, "payload/sbin/torno-guest": filepath.Join(bin, "torno-guest")} {
		b, err := os.ReadFile(from)
		if err != nil {
			h.t.Fatal(err)
		}
		add(name, 0o755, b)
	}
	for name, content := range more {
		add("payload/"+name, 0o755, []byte(content))
	}
	modules, contents, err := k.Load(kernel.MMIO, kernel.Common)
	if err != nil {
		h.t.Fatal(err)
	}
	var list strings.Builder
	for i, m := range modules {
		add("torno/"+m.File, 0o600, contents[i])
		list.WriteString(m.File + "\n")
	}
	add("torno/modules", 0o600, []byte(list.String()))
	var b bytes.Buffer
	if err := initramfs.Write(&b, files); err != nil {
		h.t.Fatal(err)
	}
	own := ownImage{filepath.Join(h.dir, "own.img"), k.Path(), filepath.Join(h.dir, "own.initrd")}
	mustRun(h.t, h.dir, "cp", "--sparse=always", "--reflink=auto", image.Path(), own.rootfs)
	if err := os.Chown(own.rootfs, vmmUser, -1); err != nil { // the VM may write to it
		h.t.Fatal(err)
	}
	if err := os.WriteFile(own.initrd, b.Bytes(), 0o644); err != nil {
		h.t.Fatal(err)
	}
	return own
}

// directories returns the directories of a path, and of others below a place, each after the one that it is in.
func directories(path, place string, below map[string]string) []string {
	all := map[string]bool{}
	add := func(path string) {
		for dir := filepath.Dir(path); dir != "."; dir = filepath.Dir(dir) {
			all[dir] = true
		}
	}
	add(path)
	for name := range below {
		add(filepath.Join(place, name))
	}
	return slices.Sorted(maps.Keys(all))
}

func (o ownImage) flags() []string {
	return []string{"--rootfs", o.rootfs, "--kernel", o.kernel, "--initrd", o.initrd}
}

// ownInit is the init of an image that knows nothing of torno but where its guest is. It starts it twice, killing
// it in between, and each time an agent's program as user 1000.
const ownInit = `#!/bin/sh
mount -t tmpfs tmpfs /run; mount -t tmpfs tmpfs /tmp; mkdir -p /dev/pts
say() { echo "> $*"; }
guest() { # until there is an environment, or it has ended
  rm -f /run/torno/env
  torno-guest attach & pid=$!
  while [ ! -f /run/torno/env ]; do kill -0 $pid 2>/dev/null || { say guest ended; return; }; sleep 0.1; done
}
agent() { setpriv --reuid 1000 --regid 1000 --clear-groups sh -c 'set -a; . /run/torno/env; set +a; '"$1"; }
guest
say first $(agent 'curl -sS -o /dev/null -w "%{http_code}" https://api.anthropic.com/v1/models')
kill -KILL $pid; wait $pid 2>/dev/null
say without $(agent 'curl -sS -m 5 -o /dev/null -w "%{http_code}" https://api.anthropic.com/v1/models 2>/dev/null')
guest
say second $(agent 'curl -sS -o /dev/null -w "%{http_code}" https://api.anthropic.com/v1/models')
say denied $(agent 'curl -sS -o /dev/null -w "%{http_code}" https://evil.example.net/')
say state $(stat -c "%a %u" /run/torno/session) $(agent 'cat /run/torno/session >/dev/null 2>&1 && echo read || echo hidden')
agent 'python3 /pretender'
say still $(agent 'curl -sS -o /dev/null -w "%{http_code}" https://api.anthropic.com/v1/models')
say done
kill $pid; wait $pid; say end $?
sleep 60
`

// attachedPretender is what an unprivileged process of an image tries, which no system call filter of torno's holds: to be taken
// for the guest by the host, and for the host by the guest (attack 4).
const attachedPretender = `import os, socket
def tries(what, f):
    try: f(); print(">", what, "allowed", flush=True)
    except OSError as e: print(">", what, "refused", flush=True)
def vsock(bind=None):
    s = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM); s.settimeout(5)
    if bind is not None: s.bind((socket.VMADDR_CID_ANY, bind))
    return s
def speak():
    s = vsock(); s.connect((2, 618)); s.sendall(b"torno\x00\x01\x01" + bytes(32))
    if not s.recv(8): raise OSError
def listen(port):
    s = vsock(port); s.listen(); listeners.append(s)
listeners = []
tries("calling the host", speak)
tries("a privileged port", lambda: vsock(900))
tries("port 618 of this machine", lambda: listen(618))
tries("port 2000 of this machine", lambda: listen(2000))
tries("this machine by CID 1", lambda: vsock().connect((1, 2000)))
tries("a module", lambda: os.open("/dev/vhost-vsock", os.O_RDWR))
`

// A VM with an init of its own, and torno-guest attach as a service in it: it waits where a snapshot could be taken until
// a session is made, serves, is killed and takes its session up again; without it nothing leaves; attack 4.
func TestVMAttached(t *testing.T) {
	needVM(t)
	h := newPlatform(t)
	own := h.newOwnImage(map[string]string{"own-init": ownInit, "pretender": attachedPretender})
	dir := h.vmmDir("vm")
	plan := h.vmConfigFor("firecracker", dir, append(own.flags(), "--attach", "--wait", "--no-session")...)
	plan.Config = []byte(strings.Replace(string(plan.Config), "torno.wait", "torno.wait init=/own-init", 1))
	vm := h.startVM("firecracker", dir, plan)
	vm.await(t, "waiting for a session; a snapshot may be taken now")
	time.Sleep(time.Second)
	if said := vm.lines(); len(said) > 0 {
		t.Errorf("before there is a session the machine says %q", said)
	}
	session := h.vmConfig("firecracker", dir, append(own.flags(), "--attach")...).Session
	vm.await(t, "> done")
	want := []string{
		"first 200", "without 000", "second 200", "denied 403", "state 600 0 hidden",
		"calling the host refused", "a privileged port refused", "port 618 of this machine refused", "port 2000 of this machine allowed",
		"this machine by CID 1 refused", "a module refused", "still 200", "done",
	}
	if got := vm.lines(); len(got) < len(want) || strings.Join(got[:len(want)], "\n") != strings.Join(want, "\n") {
		t.Errorf("the machine says\n%s\nwant\n%s\nconsole:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"), vm.console)
	}
	vm.await(t, "> end 0")
	if show := h.must("sessions", "show", session); !strings.Contains(show, "command    the VM's own\n") || !strings.Contains(show, "state      live\n") {
		t.Errorf("the session:\n%s", show)
	}
}

// A root file system with the guest baked in, which the kernel starts as init.
func TestVMBakedIn(t *testing.T) {
	needVM(t)
	h := newPlatform(t)
	own := h.newOwnImage(nil)
	dir := h.vmmDir("vm")
	plan := h.vmConfig("firecracker", dir, append(own.flags(), "--init", "/sbin/torno-guest", "--", "sh", "-c",
		`echo "> $(id -un) $(curl -sS -o /dev/null -w "%{http_code}" https://api.anthropic.com/v1/models)"; echo "> $(ls /dev | wc -w) $(cat /proc/sys/kernel/modules_disabled)"; echo "> done"`)...)
	vm := h.startVM("firecracker", dir, plan)
	vm.await(t, "> done")
	if got := strings.Join(vm.lines(), "; "); got != "agent 200; 14 1; done" {
		t.Errorf("the machine says %q; console:\n%s", got, vm.console)
	}
}

// images/README.md: every block of commands, in order, as it stands there.
func TestImagesREADME(t *testing.T) {
	page, err := os.ReadFile("../images/README.md")
	if err != nil {
		t.Fatal(err)
	}
	h := newPlatform(t)
	root := h.dir + "/tree"
	script := `set -eu
mkdir -p bin images/systemd vm1 vm2 vm3 vm4 vm5 ` + root + `/sbin ` + root + `/usr/local/sbin ` + root + `/etc/systemd/system/multi-user.target.wants
chmod 700 vm?
cp ` + bin + `/torno-guest bin/
cp "$OLDPWD/torno-guest.service" images/systemd/
: >vmlinux
mkfs.ext4 -q -d ` + root + ` rootfs.ext4 64M
torno trust --agent my-agent --yes torno.toml >/dev/null 2>&1 || torno run --agent my-agent --isolation namespace --trust-config -- true
`
	blocks := regexp.MustCompile("(?s)\n```sh\n(.*?)```").FindAllSubmatch(page, -1)
	if len(blocks) < 5 {
		t.Fatalf("%d blocks of commands", len(blocks))
	}
	for _, b := range blocks {
		script += string(b[1])
	}
	script += `
for f in /sbin/torno-guest /usr/local/sbin/torno-guest /etc/systemd/system/torno-guest.service; do debugfs -R "stat $f" rootfs.ext4 2>/dev/null | awk -v f=$f '/Mode:/{print f, $6}'; done
debugfs -R "stat /etc/systemd/system/multi-user.target.wants/torno-guest.service" rootfs.ext4 2>/dev/null | grep -o 'Fast link dest: .*'
debugfs -R "dump /sbin/torno-guest out" rootfs.ext4 2>/dev/null; cmp out bin/torno-guest
grep -c torno.wait template.json
cat vm3.sh | cut -d' ' -f1
torno sessions list | grep -c waiting`
	cmd := h.command("-")
	cmd = &exec.Cmd{Path: "/bin/sh", Args: []string{"sh", "-c", script}, Dir: h.work, Env: append(cmd.Env, "PATH="+bin+":/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin", "OLDPWD="+mustAbs(t, "../images/systemd"))}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s\n%s", err, &stdout, &stderr)
	}
	want := `/sbin/torno-guest 0755
/usr/local/sbin/torno-guest 0755
/etc/systemd/system/torno-guest.service 0644
Fast link dest: "../torno-guest.service"
1
cloud-hypervisor
4
`
	got := regexp.MustCompile(`(?m)^(debugfs: |Allocated inode|Creating regular file).*\n`).ReplaceAllString(stdout.String(), "")
	if got != want {
		t.Errorf("the commands of the page lead to\n%s\nwant\n%s\n%s", &stdout, want, &stderr)
	}
}

func mustAbs(t *testing.T, path string) string {
	t.Helper()
	abs, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return abs
}

// The unit is one that systemd takes without a complaint.
func TestSystemdUnit(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("needs systemd-analyze; try: apt-get install systemd")
	}
	unit, err := os.ReadFile("../images/systemd/torno-guest.service")
	if err != nil {
		t.Fatal(err)
	}
	const program = "/usr/local/sbin/torno-guest"
	if !bytes.Contains(unit, []byte("ExecStart="+program+" attach\n")) {
		t.Fatal("the unit does not start the guest")
	}
	path := filepath.Join(t.TempDir(), "torno-guest.service")
	if err := os.WriteFile(path, bytes.Replace(unit, []byte(program), []byte(bin+"/torno-guest"), 1), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("systemd-analyze", "verify", "--man=no", path).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%v: %s", err, fmt.Sprint(string(out)))
	}
}
