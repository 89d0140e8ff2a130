package doctor

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// wants compares a finding's state, and a word of its detail and hint.
func wants(t *testing.T, f Finding, state, word string) {
	t.Helper()
	if f.State != state || !strings.Contains(f.Detail+" "+f.Hint, word) {
		t.Errorf("%+v, want %s with %q", f, state, word)
	}
	if f.State == StateFail && f.Hint == "" {
		t.Errorf("%+v says not what to do", f)
	}
}

func TestKernel(t *testing.T) {
	wants(t, Kernel("6.1.0-13-amd64"), StateOK, "6.1")
	wants(t, Kernel("5.12.0"), StateOK, "")
	wants(t, Kernel("5.11.22"), StateFail, "too old")
	wants(t, Kernel("4.19"), StateFail, "5.12")
	wants(t, Kernel("odd"), StateWarn, "odd")
	wants(t, Kernel(Release()), StateOK, "Linux")
}

// tree makes files and returns the directory above them.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestConfinement(t *testing.T) {
	good := tree(t, map[string]string{"kernel/seccomp/actions_avail": "kill_process errno allow\n"})
	wants(t, Confinement(4, good), StateOK, "landlock version 4")
	wants(t, Confinement(0, good), StateWarn, "no landlock")
	wants(t, Confinement(4, t.TempDir()), StateFail, "filters no system calls")
	wants(t, Confinement(1, "/proc/sys"), StateOK, "seccomp") // of the machine that tests
}

func TestUserNamespaces(t *testing.T) {
	const most, debian, ubuntu = "user/max_user_namespaces", "kernel/unprivileged_userns_clone", "kernel/apparmor_restrict_unprivileged_userns"
	for _, test := range []struct {
		files       map[string]string
		root        bool
		state, word string
	}{
		{map[string]string{most: "1000\n"}, false, StateOK, "users may"},
		{map[string]string{most: "1000\n", debian: "1\n", ubuntu: "0\n"}, false, StateOK, "users may"},
		{map[string]string{most: "1000\n", debian: "0\n", ubuntu: "1\n"}, true, StateOK, "root may"},
		{map[string]string{most: "1000\n", debian: "0\n"}, false, StateFail, "kernel.unprivileged_userns_clone=1"},
		{map[string]string{most: "1000\n", ubuntu: "1\n"}, false, StateWarn, "AppArmor"},
		{map[string]string{most: "0\n"}, true, StateFail, "user.max_user_namespaces"},
		{nil, false, StateFail, "CONFIG_USER_NS"},
	} {
		wants(t, UserNamespaces(tree(t, test.files), test.root), test.state, test.word)
	}
}

func TestClock(t *testing.T) {
	now := time.Now()
	wants(t, Clock(now, now.Add(-time.Hour), true), StateOK, "kept by a time service")
	wants(t, Clock(now, now.Add(-time.Hour), false), StateOK, "no time service")
	wants(t, Clock(now, now.Add(25*time.Hour), true), StateFail, "before torno was made")
}

func TestKVM(t *testing.T) {
	wants(t, KVM("/dev/kvm", nil), StateOK, "makes VMs")
	wants(t, KVM("/dev/kvm", fs.ErrNotExist), StateWarn, "modprobe")
	wants(t, KVM("/dev/kvm", syscall.EACCES), StateWarn, "usermod")
	wants(t, KVM("/dev/kvm", syscall.EBUSY), StateWarn, "virtualisation")
	if err := TryKVM(filepath.Join(t.TempDir(), "kvm")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no device: %v", err)
	}
	if err := TryKVM("/dev/null"); err == nil || !strings.Contains(err.Error(), "no KVM") {
		t.Errorf("another device: %v", err)
	}
	if f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0); err == nil { // the good state, where there is one
		f.Close()
		if err := TryKVM("/dev/kvm"); err != nil {
			t.Error(err)
		}
	}
}

func TestVhostVSOCK(t *testing.T) {
	dir := tree(t, map[string]string{"vhost-vsock": ""})
	wants(t, VhostVSOCK(filepath.Join(dir, "vhost-vsock"), true), StateOK, "is there")
	wants(t, VhostVSOCK(filepath.Join(dir, "none"), true), StateFail, "modprobe vhost_vsock")
	wants(t, VhostVSOCK(filepath.Join(dir, "none"), false), StateOK, "not needed")
}

// look is a check of one finding.
func look(f func() Finding) []Check {
	return []Check{{Name: "x", Why: "because", Look: func(context.Context) Finding { return f() }}}
}

// mended runs a check, with and without mending, and returns what the second run says.
func mended(t *testing.T, f func() Finding, state, word string) Finding {
	t.Helper()
	before := Run(t.Context(), look(f), false)[0]
	wants(t, before, state, word)
	if again := Run(t.Context(), look(f), false)[0]; again.State != state {
		t.Errorf("a look has changed something: %+v", again)
	}
	after := Run(t.Context(), look(f), true)[0]
	if last := Run(t.Context(), look(f), true)[0]; after.State == StateFixed && last.State != StateOK {
		t.Errorf("mended to %+v", last)
	}
	return after
}

func TestPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	private := func() Finding { return Private(dir, "broker.toml") }
	wants(t, private(), StateOK, "made by the first broker")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if f := mended(t, private, StateFail, "others can reach"); f.State != StateFixed || f.Fixed != "chmod 700 "+dir {
		t.Errorf("%+v", f)
	}
	for name, mode := range map[string]os.FileMode{"key": 0o644, "broker.toml": 0o644, "lock": 0o600} {
		if err := errors.Join(os.WriteFile(filepath.Join(dir, name), nil, 0o600), os.Chmod(filepath.Join(dir, name), mode)); err != nil {
			t.Fatal(err)
		}
	}
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	if err := errors.Join(os.WriteFile(elsewhere, nil, 0o644), os.Symlink(elsewhere, filepath.Join(dir, "link"))); err != nil {
		t.Fatal(err)
	}
	if f := mended(t, private, StateWarn, "key"); f.State != StateFixed || f.Fixed != "chmod go= "+filepath.Join(dir, "key") {
		t.Errorf("%+v", f)
	}
	for path, want := range map[string]os.FileMode{filepath.Join(dir, "key"): 0o600, filepath.Join(dir, "broker.toml"): 0o644, elsewhere: 0o644} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	wants(t, Private(link), StateFail, "symbolic link")
	for _, path := range []string{link, "/dev/null"} { // what may have come in between
		if err := withoutOthers(path); err == nil {
			t.Errorf("%s was changed", path)
		}
	}
	wants(t, Private(elsewhere), StateFail, "not a directory")
	if os.Geteuid() == 0 {
		if err := os.Chown(dir, 65534, -1); err != nil {
			t.Fatal(err)
		}
		if f := mended(t, private, StateFail, "belongs to user 65534"); f.Fixed != "" {
			t.Errorf("what is another's was changed: %+v", f)
		}
	}
	wants(t, Private(filepath.Join(elsewhere, "torno")), StateFail, "not a directory")
	if closed := filepath.Join(t.TempDir(), "closed"); os.Geteuid() != 0 && os.Mkdir(closed, 0o500) == nil {
		wants(t, Private(filepath.Join(closed, "torno")), StateFail, "cannot be made")
	}
}

func TestSocket(t *testing.T) {
	dir, err := os.MkdirTemp("", "td") // short, for the socket's path
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "control")
	socket := func() Finding { return Socket(t.Context(), path) }
	wants(t, socket(), StateOK, "no socket")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	if f := mended(t, socket, StateFail, "others can reach"); f.State != StateFixed {
		t.Errorf("%+v", f)
	}
	if f := mended(t, socket, StateOK, path); f.Fixed != "" {
		t.Errorf("a socket in use was mended: %+v", f)
	}
	ln.Close()
	if f := mended(t, socket, StateWarn, "nobody listens"); f.State != StateFixed || f.Fixed != "rm "+path {
		t.Errorf("%+v", f)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	wants(t, socket(), StateFail, "is no socket")
	// Somebody who begins to listen just before the mending keeps the socket.
	os.Remove(path)
	if ln, err = net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"}); err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	ln.Close()
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	f := socket()
	os.Remove(path)
	if ln, err = net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"}); err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if err := f.fix.Do(); err == nil {
		t.Error("a socket in use was removed")
	}
}

func TestDisk(t *testing.T) {
	dir := t.TempDir()
	wants(t, Disk(Space{dir, 1, "a"}, Space{filepath.Join(dir, "not", "there"), 1, "b"}), StateOK, "MiB for b")
	wants(t, Disk(Space{dir, 1, "a"}, Space{dir, 1 << 40, "images"}), StateWarn, "images takes")
}

// authority makes a certificate that is valid until a time, and the key that belongs to it.
func authority(t *testing.T, until time.Time, isCA bool) (*x509.Certificate, *ecdsa.PrivateKey, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: until.Add(-1000 * time.Hour), NotAfter: until,
		IsCA: isCA, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, DNSNames: []string{"api.acme.example"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return cert, key, path
}

func TestRoots(t *testing.T) {
	now := time.Now()
	cert, _, good := authority(t, now.Add(500*time.Hour), true)
	system := x509.NewCertPool()
	system.AddCert(cert)
	_, _, soon := authority(t, now.Add(24*time.Hour), true)
	_, _, over := authority(t, now.Add(-time.Hour), true)
	_, _, leaf := authority(t, now.Add(500*time.Hour), false)
	wants(t, Roots(now, system, good), StateOK, "1 files")
	wants(t, Roots(now, x509.NewCertPool()), StateFail, "ca-certificates")
	wants(t, Roots(now, system, good, soon), StateWarn, "ends on")
	wants(t, Roots(now, system, over), StateFail, "is valid from")
	wants(t, Roots(now, system, leaf), StateFail, "no authority")
	wants(t, Roots(now, system, filepath.Join(t.TempDir(), "none")), StateFail, "no such file")
	wants(t, Roots(now, system, "/dev/null"), StateFail, "no certificate")
}

func TestUpstreams(t *testing.T) {
	cert, key, _ := authority(t, time.Now().Add(500*time.Hour), true)
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}}}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	address := s.Listener.Addr().String()
	good := Target{Host: "api.acme.example", Port: 443, Dial: address, Roots: roots}
	ctx := t.Context()
	wants(t, Upstreams(ctx, nil), StateOK, "none")
	wants(t, Upstreams(ctx, []Target{good}), StateOK, "1 answer")
	untrusted := good
	untrusted.Roots = x509.NewCertPool()
	wants(t, Upstreams(ctx, []Target{good, untrusted}), StateWarn, "[egress] ca")
	misnamed := good
	misnamed.Host = "other.example"
	wants(t, Upstreams(ctx, []Target{misnamed}), StateWarn, "1 of 1")
	gone := good
	gone.Dial = "127.0.0.1:1"
	wants(t, Upstreams(ctx, []Target{gone}), StateWarn, "refused")
	private := Target{Host: "localhost", Port: netip.MustParseAddrPort(address).Port(), Roots: roots}
	wants(t, Upstreams(ctx, []Target{private}), StateWarn, "allow_private")
	var many []Target
	for range maxTargets + 3 {
		many = append(many, good)
	}
	wants(t, Upstreams(ctx, many), StateOK, "3 more were not tried")
}

func TestUnit(t *testing.T) {
	booted := t.TempDir()
	says := func(properties string) {
		dir := tree(t, map[string]string{"systemctl": "#!/bin/sh\nprintf '" + properties + "'\n"})
		if err := os.Chmod(filepath.Join(dir, "systemctl"), 0o700); err != nil {
			t.Fatal(err)
		}
		t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	}
	unit := func() Finding { return Unit(t.Context(), booted, "torno.service") }
	wants(t, Unit(t.Context(), filepath.Join(booted, "none"), "torno.service"), StateOK, "does not run here")
	says(`LoadState=not-found\nActiveState=inactive\n`)
	wants(t, unit(), StateOK, "not installed")
	says(`LoadState=loaded\nActiveState=active\nResult=success\nUnitFileState=enabled\n`)
	wants(t, unit(), StateOK, "enabled and active")
	says(`LoadState=loaded\nActiveState=failed\nResult=exit-code\nUnitFileState=enabled\n`)
	wants(t, unit(), StateFail, "journalctl -u torno.service")
	says(`LoadState=loaded\nActiveState=inactive\nResult=success\nUnitFileState=enabled\n`)
	wants(t, unit(), StateWarn, "systemctl start")
	says(`LoadState=bad-setting\nActiveState=inactive\n`)
	wants(t, unit(), StateFail, "bad-setting")
}

// A mending that fails says why, and one that does not help is none.
func TestRun(t *testing.T) {
	broken := func() Finding {
		return Fail("", "broken").With(Fix{What: "try", Do: func() error { return errors.New("no") }})
	}
	f := Run(t.Context(), look(broken), true)
	wants(t, f[0], StateFail, "try: no")
	if !Failed(f) || f[0].Check != "x" || f[0].Why != "because" {
		t.Errorf("%+v", f)
	}
	idle := func() Finding { return Fail("", "broken").With(Fix{What: "try", Do: func() error { return nil }}) }
	if f := Run(t.Context(), look(idle), true); f[0].Fixed != "try; try; try; try" || f[0].State != StateFail {
		t.Errorf("%+v", f)
	}
	if Failed(Run(t.Context(), look(func() Finding { return OK("fine") }), true)) {
		t.Error("what is fine has failed")
	}
}
