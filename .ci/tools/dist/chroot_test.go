package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// needDist skips what takes minutes.
func needDist(t *testing.T) {
	t.Helper()
	if os.Getenv("TORNO_DIST") == "" {
		t.Skip("takes minutes; try: make test-dist")
	}
}

// TestReproducible builds both architectures twice, the second time from a copy of the repository elsewhere.
func TestReproducible(t *testing.T) {
	needDist(t)
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := filepath.Join(t.TempDir(), "a", "clone")
	run(t, "sh", "-c", `mkdir -p "$2" && cd "$1" && git ls-files -z | tar --null -T - -c | tar -x -C "$2"`, "-", root, elsewhere)
	first := read(t, filepath.Join(dist(t, root, "v0.1.0", "amd64", "arm64"), "SHA256SUMS"))
	t.Setenv("GOCACHE", t.TempDir()) // compiles all of it anew
	if second := read(t, filepath.Join(dist(t, elsewhere, "v0.1.0", "amd64", "arm64"), "SHA256SUMS")); first != second {
		t.Errorf("one commit made\n%s\nand elsewhere\n%s", first, second)
	}
}

// TestARM64 runs the other architecture's programs where an emulator can.
func TestARM64(t *testing.T) {
	needDist(t)
	out, root := dist(t, "../../..", "v0.1.0", "arm64"), t.TempDir()
	run(t, "dpkg-deb", "-x", one(t, out, "*_arm64.deb"), root)
	for _, name := range []string{"torno", "torno-guest"} {
		path := filepath.Join(root, "usr/bin", name)
		if got := run(t, "file", path); !strings.Contains(got, "ARM aarch64") || !strings.Contains(got, "statically linked") {
			t.Errorf("%s", got)
		}
	}
	if got := run(t, "qemu-aarch64-static", filepath.Join(root, "usr/bin/torno"), "--version"); got != "torno v0.1.0\n" {
		t.Errorf("%q", got)
	}
	if got := run(t, "qemu-aarch64-static", filepath.Join(root, "usr/bin/torno-guest"), "-h"); !strings.Contains(got, "torno-guest attach") {
		t.Errorf("%q", got)
	}
}

// TestLintian wants no error, and that lintian finds one where there is one.
func TestLintian(t *testing.T) {
	needDist(t)
	deb := one(t, dist(t, "../../..", "v0.1.0", "amd64"), "*.deb")
	args := []string{"--fail-on", "error", "--allow-root", "--tag-display-limit", "0"}
	if out, err := exec.Command("lintian", append(args, deb)...).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if err := exec.Command("lintian", append(args, "--no-override", deb)...).Run(); err == nil {
		t.Error("no error even where nothing is overridden")
	}
}

// TestCompletions has each shell read what it completes with.
func TestCompletions(t *testing.T) {
	needDist(t)
	root := t.TempDir()
	run(t, "dpkg-deb", "-x", one(t, dist(t, "../../..", "v0.1.0", "amd64"), "*.deb"), root)
	run(t, "bash", "-n", root+"/usr/share/bash-completion/completions/torno")
	run(t, "zsh", "-n", root+"/usr/share/zsh/vendor-completions/_torno")
	run(t, "fish", "--no-execute", root+"/usr/share/fish/vendor_completions.d/torno.fish")
}

// base makes a root file system of Debian with systemd's programs, which nothing boots, once for all tests.
var base = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "torno-root")
	if err != nil {
		return "", err
	}
	made = append(made, dir)
	root := filepath.Join(dir, "root")
	out, err := exec.Command("mmdebstrap", "--quiet", "--variant=apt", "--include=systemd,ca-certificates,passwd,procps,man-db", "--aptopt=Apt::Install-Recommends false", "bookworm", root).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("mmdebstrap: %w\n%s", err, out)
	}
	return root, nil
})

// made is what is removed in the end.
var made []string

func TestMain(m *testing.M) {
	code := m.Run()
	for _, dir := range made {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

// newRoot returns a copy of base.
func newRoot(t *testing.T) string {
	t.Helper()
	from, err := base()
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(t.TempDir(), "root")
	run(t, "cp", "-a", "--reflink=auto", from, root)
	return root
}

// inside runs a script as root of a root file system, with processes, mounts and a network (none) of its own.
func inside(t *testing.T, root, script string) string {
	t.Helper()
	enter := `mount --bind "$1" "$1"; cd "$1"
mount -t proc proc proc; mount -t sysfs sys sys; mount --rbind /dev dev; mount -t tmpfs run run; mount -t tmpfs tmp tmp
ip link set lo up; mkdir -p .old; pivot_root . .old; cd /; umount -l .old; rmdir .old
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 sh -eu -c "$2"`
	return run(t, "timeout", "--signal=KILL", "300", "unshare", "--mount", "--net", "--ipc", "--uts", "--pid", "--fork", "--propagation", "private", "sh", "-eu", "-c", enter, "-", root, script)
}

// put copies files into a root.
func put(t *testing.T, root string, files map[string]string) {
	t.Helper()
	for to, from := range files {
		run(t, "cp", from, filepath.Join(root, to))
	}
}

const installed = `
test "$(torno --version)" = "torno $1"; torno-guest -h >/dev/null
getent passwd torno | grep -q ':/var/lib/torno:.*nologin$'
test "$(stat -c '%U %a' /var/lib/torno)" = 'torno 700'; test "$(stat -c '%U %a' /run/torno)" = 'torno 700'
systemd-analyze verify --man=yes torno.service torno.socket
systemctl enable torno.socket torno.service 2>/dev/null; test -L /etc/systemd/system/sockets.target.wants/torno.socket
bash -n /usr/share/bash-completion/completions/torno
man -w torno torno-run torno.toml broker.toml torno-guest >/dev/null
`

// worked is a broker with the socket of somebody else, as the units start it, an agent's secret, and a command in a sandbox.
const worked = `
export TORNO_STATE=/var/lib/torno XDG_RUNTIME_DIR=/run
systemd-socket-activate --listen=/run/torno/control --fdname=control --setenv=TORNO_STATE --setenv=XDG_RUNTIME_DIR --setenv=PATH \
	setpriv --reuid torno --regid torno --clear-groups torno serve --config /etc/torno/broker.toml --log warn & pid=$!
until test -S /run/torno/control; do sleep 0.2; done
chown torno:torno /run/torno/control
echo made-up-0123456789abcdef | torno secrets set my-agent ACME_TOKEN=- --host api.acme.example >/dev/null
torno secrets list my-agent | grep -q ACME_TOKEN
kill $pid; wait $pid
test "$(stat -c '%U %a' /var/lib/torno/key)" = 'torno 600'
mkdir -p /tmp/s /tmp/work; export TORNO_STATE=/tmp/s/state XDG_RUNTIME_DIR=/tmp/s; cd /tmp/work
echo made-up-0123456789abcdef | torno secrets set my-agent ACME_TOKEN=- --host api.acme.example >/dev/null
test "$(torno run --agent my-agent --isolation namespace -- id -un)" = agent
torno doctor --offline | grep -q '^ok .*namespaces'
kill "$(cat /tmp/s/state/lock)"
`

// TestDebInChroot installs, uses, upgrades, removes and purges the deb.
func TestDebInChroot(t *testing.T) {
	needDist(t)
	root := newRoot(t)
	put(t, root, map[string]string{
		"old.deb": one(t, dist(t, "../../..", "v0.0.9", "amd64"), "*.deb"),
		"new.deb": one(t, dist(t, "../../..", "v0.1.0", "amd64"), "*.deb"),
	})
	inside(t, root, `dpkg -i /old.deb >/dev/null
check() { `+installed+` }; check v0.0.9
`+worked+`
echo '# mine' >>/etc/torno/broker.toml
dpkg -i /new.deb >/dev/null </dev/null
check v0.1.0
grep -q '^# mine' /etc/torno/broker.toml; test -s /var/lib/torno/store.db
dpkg -r torno >/dev/null
test ! -e /usr/bin/torno; test ! -e /usr/lib/systemd/system/torno.service; test ! -L /etc/systemd/system/sockets.target.wants/torno.socket
grep -q '^# mine' /etc/torno/broker.toml; test -s /var/lib/torno/store.db; test -s /var/lib/torno/key
dpkg -P torno >/dev/null
test -z "$(getent passwd torno; getent group torno)"
rm -rf /tmp/s /tmp/work
left=$(find / -xdev -name '*torno*' -not -path '/proc/*'); test -z "$left" || { echo "left: $left" >&2; exit 1; }
dpkg -i /new.deb >/dev/null; dpkg -P torno >/dev/null # without a remove in between
`)
}

// TestRPM installs, upgrades and removes the rpm in a root file system; that it is Debian's is no matter to rpm.
func TestRPM(t *testing.T) {
	needDist(t)
	root := newRoot(t)
	old, latest := one(t, dist(t, "../../..", "v0.0.9", "amd64"), "*.rpm"), one(t, dist(t, "../../..", "v0.1.0", "amd64"), "*.rpm")
	rpm := func(args ...string) string { return run(t, "rpm", append([]string{"--root", root}, args...)...) }
	if scripts := run(t, "rpm", "-qp", "--scripts", latest); strings.Count(scripts, "scriptlet") != 3 {
		t.Errorf("%s", scripts)
	}
	run(t, "rpm", "-K", "--nosignature", latest)
	rpm("--initdb")
	rpm("--nodeps", "-i", old)
	inside(t, root, "systemd-tmpfiles --create torno.conf # as at boot\ncheck() { "+installed+" }; check v0.0.9\n"+worked+"echo '# mine' >>/etc/torno/broker.toml")
	rpm("--nodeps", "-U", latest)
	if changed := run(t, "sh", "-c", `rpm --root "$1" -V --nodeps torno || true`, "-", root); strings.Count(changed, "\n") > 1 || !strings.Contains(changed, "c /etc/torno/broker.toml") {
		t.Errorf("what is installed differs from the package: %s", changed)
	}
	inside(t, root, `test "$(torno --version)" = "torno v0.1.0"; grep -q '^# mine' /etc/torno/broker.toml`)
	rpm("-e", "torno")
	inside(t, root, `test ! -e /usr/bin/torno; test ! -e /usr/lib/systemd/system/torno.service; test ! -L /etc/systemd/system/sockets.target.wants/torno.socket
test -s /var/lib/torno/store.db; grep -q '^# mine' /etc/torno/broker.toml.rpmsave`)
}
