package main_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"torno.internal/host/internal/vmm"
)

// bin holds the real binaries, built once for all tests of this package.
var bin string

// TestMain makes the test binary the stand-in for other VMMs too.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) > 1 && os.Args[1] == standIn:
		os.Exit(runStandIn(os.Args[2:]))
	case len(os.Args) > 1 && os.Args[1] == vmm.ExecCommand:
		os.Exit(vmm.Exec(os.Args[2:]))
	}
	os.Exit(testMain(m))
}

// patience is how long a test waits for what comes at once on a machine that is not busy.
const patience = time.Minute

func testMain(m *testing.M) int {
	// What outlives its parent becomes a child of ours, and can be found.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	dir, err := os.MkdirTemp("", "torno-bin")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	bin = dir
	for name, pkg := range map[string]string{"torno": ".", "torno-guest": "../guest"} {
		cmd := exec.Command("go", "build", "-trimpath", "-o", filepath.Join(dir, name), pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		cmd.Stderr = os.Stderr
		if err := cmd.Run(); err != nil {
			fmt.Fprintln(os.Stderr, "building", name, err)
			return 1
		}
	}
	code := m.Run()
	if endLeftovers() && code == 0 {
		code = 1
	}
	return code
}

// A house is one broker with its own state, its canned upstream and an agent's secrets.
type house struct {
	t        *testing.T
	dir      string // temporary; state, runtime and work directories are below it
	work     string
	upstream *upstream
	serve    *exec.Cmd
	log      *bytes.Buffer
}

// newHouse starts a broker. extra is appended to broker.toml.
func newHouse(t *testing.T, extra string) *house {
	t.Helper()
	if testing.Short() {
		t.Skip("needs real processes; run without -short")
	}
	dir, err := os.MkdirTemp("", "th")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	h := &house{t: t, dir: dir, work: filepath.Join(dir, "work"), upstream: newUpstream(t), log: &bytes.Buffer{}}
	if err := os.Chmod(dir, 0o755); err != nil { // the workload's user must reach the work directory
		t.Fatal(err)
	}
	if err := os.Mkdir(h.work, 0o755); err != nil {
		t.Fatal(err)
	}
	h.write("broker.toml", h.upstream.brokerTOML()+extra)
	h.startBroker()
	return h
}

func (h *house) startBroker() {
	h.t.Helper()
	h.serve = h.command("serve", "--config", filepath.Join(h.work, "broker.toml"))
	h.serve.Stdout, h.serve.Stderr = h.log, h.log
	if err := h.serve.Start(); err != nil {
		h.t.Fatal(err)
	}
	serve := h.serve
	h.t.Cleanup(func() {
		_ = serve.Process.Signal(os.Interrupt)
		done := make(chan struct{})
		go func() { _ = serve.Wait(); close(done) }()
		select {
		case <-done:
		case <-time.After(patience):
			_ = serve.Process.Kill()
			<-done
			h.t.Error("torno serve did not stop after an interrupt")
		}
		if h.t.Failed() {
			h.t.Logf("broker log:\n%s", h.log)
		}
	})
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		if h.command("sessions", "list", "--json").Run() == nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	h.t.Fatalf("torno serve did not come up:\n%s", h.log)
}

func (h *house) write(name, content string) {
	h.t.Helper()
	if err := os.WriteFile(filepath.Join(h.work, name), []byte(content), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

// command returns torno with args, in the work directory, with this house's state.
func (h *house) command(args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(bin, "torno"), args...)
	cmd.Dir = h.work
	cmd.Env = append(os.Environ(),
		"TORNO_STATE="+filepath.Join(h.dir, "state"),
		"TORNO_WORKSPACES="+filepath.Join(h.dir, "workspaces"),
		"XDG_RUNTIME_DIR="+filepath.Join(h.dir, "rt"),
	)
	return cmd
}

// A result is how a command ended.
type result struct {
	stdout, stderr string
	code           int
}

// torno runs torno with args and returns how it ended.
func (h *house) torno(args ...string) result { return h.tornoIn("", args...) }

// tornoIn is torno with standard input.
func (h *house) tornoIn(stdin string, args ...string) result {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	c := h.command(args...)
	cmd := exec.CommandContext(ctx, c.Path, c.Args[1:]...)
	cmd.Dir, cmd.Env = c.Dir, c.Env
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		h.t.Fatalf("torno %q: %v", args, err)
	}
	if ctx.Err() != nil {
		h.t.Fatalf("torno %q: timed out\nstdout: %s\nstderr: %s", args, &stdout, &stderr)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// must is torno that has to succeed; it returns standard output.
func (h *house) must(args ...string) string {
	h.t.Helper()
	r := h.torno(args...)
	if r.code != 0 {
		h.t.Fatalf("torno %q: exit %d\nstdout: %s\nstderr: %s", args, r.code, r.stdout, r.stderr)
	}
	return r.stdout
}

// secrets sets the keys that the canned upstreams ask for, for agent my-agent.
func (h *house) secrets() {
	h.t.Helper()
	h.must("secrets", "set", "my-agent", "ANTHROPIC_API_KEY="+anthropicKey, "OPENAI_API_KEY="+openaiKey,
		"DATABASE_URL=postgresql://app@db/app")
}

// isolation says where commands run: in VMs for the tests below TestVM, else in namespaces.
func (h *house) isolation() string {
	if strings.HasPrefix(h.t.Name(), "TestVM") {
		return "microvm"
	}
	return "namespace"
}

// run runs command as agent my-agent and returns how it ended.
func (h *house) run(command ...string) result {
	h.t.Helper()
	return h.runWith(nil, command...)
}

// runWith is run with more flags.
func (h *house) runWith(flags []string, command ...string) result {
	h.t.Helper()
	args := slices.Concat([]string{"run", "--agent", "my-agent", "--isolation", h.isolation(), "--trust-config"}, flags, []string{"--"}, command)
	return h.torno(args...)
}

// sh runs a shell script in the guest.
func (h *house) sh(script string) result {
	h.t.Helper()
	return h.run("/bin/sh", "-c", script)
}

func mustRun(t *testing.T, dir, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

func newCA(t *testing.T) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	return sign(t, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "canned upstream CA"},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, nil, nil)
}

func leafFor(t *testing.T, ca *x509.Certificate, caKey *ecdsa.PrivateKey, hosts []string) tls.Certificate {
	t.Helper()
	cert, key := sign(t, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: hosts[0]}, DNSNames: hosts,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, ca, caKey)
	return tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key}
}

// sign makes a certificate from template, signed by parent or by itself.
func sign(t *testing.T, template, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if parent == nil {
		parent, parentKey = template, key
	}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// patternHash returns the SHA-256 of the first n bytes of pattern, in hex.
func patternHash(n int64) string {
	h := sha256.New()
	_, _ = io.Copy(h, io.LimitReader(&pattern{}, n))
	return hex.EncodeToString(h.Sum(nil))
}

// peakMemory returns the peak resident size of a process in bytes.
func peakMemory(t *testing.T, pid int) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		var kib int64
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kib); err == nil {
			return kib << 10
		}
	}
	t.Fatal("no VmHWM")
	return 0
}
