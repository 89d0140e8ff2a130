package boot

import (
	"context"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"torno.internal/guest/internal/nstest"
	"torno.internal/protocol"
	"torno.internal/protocol/transport"
)

// An attachedGuest is Attach under way.
type attachedGuest struct {
	cancel context.CancelFunc
	ended  chan int
	log    *strings.Builder
}

// attach starts Attach and waits until it says that it is ready.
func (b *fakeBroker) attach(t *testing.T) *attachedGuest {
	t.Helper()
	t.Setenv("NOTIFY_SOCKET", "/run/notify")
	ready, err := net.ListenPacket("unixgram", "/run/notify")
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove("/run/notify")
	defer ready.Close()
	a := b.tryAttach(t)
	_ = ready.SetReadDeadline(time.Now().Add(20 * time.Second))
	buf := make([]byte, 100)
	if n, _, err := ready.ReadFrom(buf); err != nil || string(buf[:n]) != "READY=1" {
		a.cancel()
		t.Fatalf("notified of %q, %v; exit %d, log:\n%s", buf[:n], err, <-a.ended, a.log)
	}
	return a
}

func (b *fakeBroker) tryAttach(t *testing.T) *attachedGuest {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	a := &attachedGuest{cancel, make(chan int, 1), &strings.Builder{}}
	log := slog.New(slog.NewTextHandler(a.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	go func() {
		a.ended <- Attach(ctx, Config{Broker: b.broker, UID: 1000, Words: Words{Wait: true}, Version: "test", Log: log})
	}()
	t.Cleanup(cancel)
	return a
}

// stop ends it in the ordinary way.
func (a *attachedGuest) stop(t *testing.T) {
	t.Helper()
	a.cancel()
	if code := <-a.ended; code != 0 {
		t.Errorf("exit %d, log:\n%s", code, a.log)
	}
}

// prepareAttach makes the machine look as one with these cards.
func prepareAttach(t *testing.T, cards ...string) *fakeBroker {
	t.Helper()
	if err := unix.Mount("tmpfs", "/sys/class/net", "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	for _, name := range append(cards, "lo") {
		if err := os.MkdirAll("/sys/class/net/"+name, 0o755); err != nil {
			t.Fatal(err)
		}
		if name != "lo" {
			if err := os.Mkdir("/sys/class/net/"+name+"/device", 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	b := newBroker(t)
	b.hello.Workload.Argv, b.hello.RunToken = nil, nil
	b.hello.Env = []string{"ANTHROPIC_API_KEY=sk-ant-placeholder", "ODD=a\"b$c`d\\e'f", "1=x", "NO NAME=x"}
	b.hello.Status = []byte(`{"agent":"my-agent"}`)
	return b
}

// userRuns runs a shell script as a user.
func userRuns(t *testing.T, uid uint32, script string) string {
	t.Helper()
	cmd := exec.Command("sh", "-c", script)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid, Groups: []uint32{}}}
	cmd.Env = []string{"PATH=/usr/bin:/bin"}
	out, _ := cmd.CombinedOutput() // what it says counts
	return string(out)
}

const askAs = `set -a; . /run/torno/env; set +a; curl -sS -m 10 https://api.example.com/v1/x 2>&1; cat /run/torno/session 2>&1 | head -1; printf "%s %s\n" "$ANTHROPIC_API_KEY" "$ODD"; cat /run/torno/status`

const wantAs = "GET https://api.example.com/v1/x\ncat: /run/torno/session: Permission denied\nsk-ant-placeholder a\"b$c`d\\e'f\n{\"agent\":\"my-agent\"}\n"

// An attached guest serves the machine, and another in its place takes its session up, without a second hello. A
// session that has ended meanwhile makes way for a new one.
func TestAttach(t *testing.T) {
	nstest.Run(t, func(t *testing.T) {
		b := prepareAttach(t)
		for try := range 2 {
			a := b.attach(t)
			if got := strings.ReplaceAll(userRuns(t, 1000, askAs), ":443/", "/"); got != wantAs {
				t.Errorf("start %d: the user sees %q, want %q; log:\n%s", try+1, got, wantAs, a.log)
			}
			if _, err := os.Stat(signSocket); err == nil {
				t.Error("proofs are offered in a machine without a way out of its own")
			}
			if got := userRuns(t, 1001, "cat /run/torno/env 2>&1"); !strings.Contains(got, "Permission denied") {
				t.Errorf("another user reads the environment: %q", got)
			}
			a.stop(t)
		}
		if n := b.hellos.Load(); n != 1 {
			t.Errorf("%d hellos, want 1", n)
		}
		b.hello.Token[0]++
		b.used.Store(false)
		a := b.attach(t)
		if n := b.hellos.Load(); n != 2 {
			t.Errorf("%d hellos once the session was another, want 2; log:\n%s", n, a.log)
		}
		a.stop(t)
	})
}

// With a network card the host must know of it. Then one user is caught, whatever the resolver of the machine.
func TestAttachWithCard(t *testing.T) {
	nstest.Run(t, func(t *testing.T) {
		b := prepareAttach(t, "eth0")
		resolver, err := os.ReadFile("/etc/resolv.conf")
		if err != nil {
			t.Fatal(err)
		}
		a := b.tryAttach(t)
		if code := <-a.ended; code != protocol.ExitFailed || !strings.Contains(a.log.String(), "a network card, eth0, that the session does not know of") {
			t.Fatalf("exit %d, log:\n%s", code, a.log)
		}
		if err := os.Remove(stateFile); err != nil {
			t.Fatal(err)
		}
		b.hello.OwnEgress = true
		a = b.attach(t)
		if got := strings.ReplaceAll(userRuns(t, 1000, askAs), ":443/", "/"); got != wantAs {
			t.Errorf("the user sees %q, want %q; log:\n%s", got, wantAs, a.log)
		}
		if got := userRuns(t, 1001, "curl -sS -m 5 https://api.example.com/ 2>&1; curl -sS -m 5 http://127.0.0.1:3128/ 2>&1"); strings.Contains(got, "GET") {
			t.Errorf("another user is served: %q", got)
		}
		const sign = `curl -sS -m 10 --unix-socket "${TORNO_SIGN_SOCK:-/run/torno-guest/sign}" -d '{"method":"GET"}' http://torno/v1/sign 2>&1`
		if got := userRuns(t, 1000, ". /run/torno/env; test -n \"$TORNO_SIGN_SOCK\" && "+sign); !strings.Contains(got, `{"name":"x-asked","value":"16"}`) {
			t.Errorf("the user asks for a proof and gets %q", got)
		}
		if got := userRuns(t, 1001, sign); !strings.Contains(got, "connect") || strings.Contains(got, "x-asked") {
			t.Errorf("another user asks for a proof and gets %q", got)
		}
		if now, err := os.ReadFile("/etc/resolv.conf"); err != nil || string(now) != string(resolver) {
			t.Errorf("the machine's resolver was changed: %q, %v", now, err)
		}
		a.stop(t)
		// Who is gone leaves no hole: the user's connections lead to nobody.
		if got := userRuns(t, 1000, "curl -sS -m 5 https://93.184.216.34/ 2>&1"); !strings.Contains(got, "refused") && !strings.Contains(got, "connect") {
			t.Errorf("without the guest the user gets %q", got)
		}
	})
}

// docs/proofs.md: its two programs ask for a proof and send a request with it.
func TestProofsPage(t *testing.T) {
	page := os.Getenv("TORNO_TEST_PAGE")
	if page == "" { // the namespaces have neither this directory nor, perhaps, the file
		b, err := os.ReadFile("../../../docs/proofs.md")
		if err != nil {
			t.Fatal(err)
		}
		page = string(b)
		t.Setenv("TORNO_TEST_PAGE", page)
	}
	blocks := regexp.MustCompile("(?s)\n```(sh|python)\n(.*?)```").FindAllStringSubmatch(page, -1)
	if len(blocks) != 2 {
		t.Fatalf("%d programs on the page", len(blocks))
	}
	nstest.Run(t, func(t *testing.T) {
		b := prepareAttach(t, "eth0")
		b.hello.OwnEgress = true
		a := b.attach(t)
		dir := t.TempDir()
		for d := dir; d != "/"; d = filepath.Dir(d) { // the user may go there
			_ = os.Chmod(d, 0o755)
		}
		if err := os.Chmod(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		for _, block := range blocks {
			program := map[string]string{"sh": "sh -eu", "python": "python3"}[block[1]]
			if err := os.WriteFile(filepath.Join(dir, block[1]), []byte(block[2]), 0o644); err != nil {
				t.Fatal(err)
			}
			got := userRuns(t, 1000, "set -a; . /run/torno/env; set +a; cd "+dir+" && "+program+" "+block[1]+" 2>&1")
			b.mu.Lock()
			last := b.requests[len(b.requests)-1]
			b.mu.Unlock()
			if last.Method != "POST" || last.Authority != "api.example.org:443" || !strings.HasPrefix(last.Path, "/v1/orders") || last.Fields.Get("x-asked") == "" || last.Fields.Get("content-type") != "application/json" {
				t.Errorf("%s: %q; what arrived last is %+v; log:\n%s", block[1], got, last, a.log)
			}
		}
		a.stop(t)
	})
}

// What is for the one kind of guest is not for the other, and says so.
func TestAttachMixedUp(t *testing.T) {
	nstest.Run(t, func(t *testing.T) {
		b := prepareAttach(t)
		b.hello.Workload.Argv = []string{"true"}
		a := b.tryAttach(t)
		if code := <-a.ended; code != protocol.ExitFailed || !strings.Contains(a.log.String(), "--attach") {
			t.Errorf("exit %d, log:\n%s", code, a.log)
		}
		b.hello.Workload.Argv = nil
		var log strings.Builder
		code := Run(t.Context(), Config{Broker: b.broker, Log: slog.New(slog.NewTextHandler(&log, nil))})
		if code != protocol.ExitFailed || !strings.Contains(log.String(), "no command to start") {
			t.Errorf("exit %d, log:\n%s", code, &log)
		}
	})
}

// A guest that is told to wait says nothing until there is a session, however long that takes.
func TestWait(t *testing.T) {
	nstest.Run(t, func(t *testing.T) {
		b := newBroker(t)
		path := b.broker.Path
		away := path + ".away"
		if err := os.Rename(path, away); err != nil { // nobody answers there
			t.Fatal(err)
		}
		done := make(chan int, 1)
		var lines strings.Builder
		b.hello.Workload.Argv = []string{"true"}
		go func() {
			done <- Run(t.Context(), Config{Broker: transport.Addr{Network: transport.Unix, Path: path}, Run: b.run, Words: Words{Wait: true},
				Log: slog.New(slog.NewTextHandler(&lines, nil))})
		}()
		select {
		case code := <-done:
			t.Fatalf("exit %d before there was a session; log:\n%s", code, &lines)
		case <-time.After(protocol.HelloTimeout + time.Second): // longer than a hello may take
		}
		if err := os.Rename(away, path); err != nil {
			t.Fatal(err)
		}
		select {
		case code := <-done:
			if code != 0 {
				t.Errorf("exit %d; log:\n%s", code, &lines)
			}
		case <-time.After(15 * time.Second):
			t.Error("the guest does not go on")
		}
	})
}

func TestBootNonceOfTheMachine(t *testing.T) {
	want := strings.Repeat("n", protocol.NonceSize)
	const text = "bm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm5ubm4="
	for _, g := range []*guest{{Config: Config{Words: Words{Boot: text}}}, {bootFile: text}} {
		if b, err := g.bootNonce(); err != nil || string(b) != want {
			t.Errorf("%q, %v", b, err)
		}
	}
	if b, err := (&guest{}).bootNonce(); b != nil || err != nil {
		t.Errorf("none: %q, %v", b, err)
	}
	for _, bad := range []string{"x", text[1:], "bm4="} {
		if b, err := (&guest{bootFile: bad}).bootNonce(); err == nil {
			t.Errorf("%q passes as %q", bad, b)
		}
	}
}
