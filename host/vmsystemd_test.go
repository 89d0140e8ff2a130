package main_test

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// systemdImage is the image with systemd in it, as make test-systemd builds it.
const systemdImage = "systemd"

// checkUnit starts the check once the machine is up.
const checkUnit = `[Unit]
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/root/src/check.sh
TimeoutStartSec=infinity
`

// The units in a real machine that systemd runs: the commands of docs/systemd.md install them, a command starts the broker by
// its socket, a secret is set and used, the file is read again, the broker is stopped, killed, stuck, and started anew below a session
// that goes on, and what its sandbox lets through is tried from inside. Then the machine's clock jumps.
//
// The image takes minutes to make, so it must be asked for: make test-systemd.
func TestVMSystemd(t *testing.T) {
	if os.Getenv("TORNO_SYSTEMD") == "" {
		t.Skip("needs the image systemd; try: make test-systemd")
	}
	needVM(t)
	h := newPlatform(t)
	own := h.newOwnImageOf(systemdImage, systemdFiles(t))
	dir := h.vmmDir("vm")
	plan := h.vmConfigFor("firecracker", dir, append(own.flags(), "--attach", "--no-session", "--memory", "1536M")...)
	plan.Config = []byte(strings.Replace(string(plan.Config), ` root=/dev/vda rw"`, ` root=/dev/vda rw init=/usr/lib/systemd/systemd systemd.show_status=0 systemd.firstboot=no systemd.machine_id=0123456789abcdef0123456789abcdef systemd.wants=check.service"`, 1))
	if !strings.Contains(string(plan.Config), "systemd.wants") {
		t.Fatalf("no boot arguments in %s", plan.Config)
	}
	vm := h.startVM("firecracker", dir, plan)
	var got, soak []string
	for _, line := range vm.until("done", 12*time.Minute) {
		if figure, ok := strings.CutPrefix(line, "soak: clock"); ok {
			soak = append(soak, figure)
		} else if !strings.HasPrefix(line, "soak: ") {
			got = append(got, line)
		}
	}
	if diff := cmp.Diff(strings.Split(systemdWanted, "\n"), got); diff != "" {
		t.Errorf("what the machine says (-want +got):\n%s\nconsole:\n%s", diff, vm.console)
	}
	missed := func(figure string) bool { return strings.Contains(figure, "≤") && !strings.Contains(figure, "PASS") }
	if len(soak) < 6 || slices.ContainsFunc(soak, missed) {
		t.Errorf("while the machine's clock jumps:\n%s", strings.Join(soak, "\n"))
	}
	t.Logf("\n%s", strings.Join(soak, "\n"))
}

// systemdWanted is what the machine must say.
const systemdWanted = `installed: 0 active active, user torno, state 700 torno, socket 600 torno
stopped: active inactive
a command starts it: [] active active
set: 0 1
session
exchange: 200  right
status: "1 sessions, 0 requests wait for a person"
reload: 0
still: 200  right
narrowed: 403 denied_by_rule denied_by_rule: A deny rule matches this request; run torno policy check to see which.
wrong file: not reloaded: active active
restart: 0 active active
after a restart: 200  right
after kill -9: 200  right
watchdog: 1
after the watchdog: 200  right
session ended: []
passphrase: 0 protected by: passphrase the s
probe: 0
capabilities: refused
write its state: allowed
write its sockets' place: allowed
write /etc: refused
write /usr: refused
write /var/log: refused
write another's /run: refused
write /root/src: refused
see /home/person: refused
see /root/src: refused
read /etc/shadow: refused
read /etc/torno/broker.toml: allowed
open the disk: refused
see other processes: refused
write a sysctl: refused
a new namespace: refused
a mount: refused
a raw socket: refused
AF_VSOCK: refused
memory that is written and executed: refused
set the clock: refused
reboot, or forbid ^Alt-Delete to: refused
a cloud's metadata: refused
the loopback: allowed
a setuid program: refused
the host sees: 0 files of the probe's
without the sandbox: 25 allowed, 
audit: 0
log: 0 lines with the key, errors: reloading;
end: inactive inactive, success 0
exposure: 1.1
done 0`

// until waits until the workload says something that begins so, or the VM ends, and returns all that it said.
func (vm *standInVM) until(last string, most time.Duration) []string {
	for deadline := time.Now().Add(most); ; time.Sleep(200 * time.Millisecond) {
		lines := vm.lines()
		if n := len(lines); n > 0 && strings.HasPrefix(lines[n-1], last) || len(vm.ended) > 0 || time.Now().After(deadline) {
			return lines
		}
	}
}

// systemdFiles are what is put into the machine, by path.
func systemdFiles(t *testing.T) map[string]string {
	t.Helper()
	bench := filepath.Join(t.TempDir(), "bench")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", bench, "../bench")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cert, ca := issue(t, []string{"api.example.org"})
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	page := readFile(t, "../docs/systemd.md")
	files := map[string]string{
		"etc/systemd/system/check.service": checkUnit,
		"root/src/install.sh":              blockWith(page, "sh", "systemd-sysusers"),
		"root/src/key":                     customKey,
		"root/src/ca.pem":                  string(ca),
		"root/src/cert.pem":                string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})),
		"root/src/cert.key":                string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})),
		"root/src/broker.toml":             "[[upstream]]\nhost = \"api.example.org\"\ndial = \"127.0.0.1:8443\"\nca = \"/etc/torno/ca.pem\"\n",
		"usr/local/bin/torno-bench":        readFile(t, bench),
	}
	for _, name := range []string{"check.sh", "probe.py", "upstream.py"} {
		files["root/src/"+name] = readFile(t, filepath.Join("testdata/systemd", name))
	}
	for _, name := range []string{"torno", "torno-guest"} {
		files["root/src/bin/"+name] = readFile(t, filepath.Join(bin, name))
	}
	units, err := filepath.Glob("systemd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range units {
		files["root/src/host/"+path] = readFile(t, path)
	}
	return files
}

// blockWith returns the block of a language in a page of Markdown that has a word in it.
func blockWith(page, language, word string) string {
	for part := range strings.SplitSeq(page, "```"+language+"\n") {
		if block, _, _ := strings.Cut(part, "```"); strings.Contains(block, word) {
			return block
		}
	}
	return ""
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
