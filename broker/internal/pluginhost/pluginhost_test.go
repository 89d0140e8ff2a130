package pluginhost

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"torno.internal/broker/internal/confine"
	"torno.internal/broker/plugin"
	"torno.internal/protocol/control"
)

// canary is testdata/bad's secret.
const canary = "canary-8sJ2nd83kdPqLz0"

var built string // where testdata/bad is

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == confine.Command {
		os.Exit(confine.Exec())
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "bad")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		built = filepath.Join(dir, "bad")
		cmd := exec.Command("go", "build", "-o", built, "./testdata/bad")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			panic(string(out))
		}
		code := m.Run()
		if err := goleak.Find(); code == 0 && err != nil {
			println(err.Error())
			return 1
		}
		return code
	}())
}

// A testHost is a host with one plugin, whose events are kept.
type testHost struct {
	*Host
	mu     sync.Mutex
	events []Event
}

// quick are lifetimes that tests wait for.
var quick = lifetimes{idle: time.Hour, health: 300 * time.Millisecond, minBackOff: 50 * time.Millisecond, maxBackOff: 100 * time.Millisecond}

func sum(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

// declare returns testdata/bad with a fault, as the operator declares it.
func declare(t testing.TB, fault string) control.Plugin {
	return control.Plugin{
		Kind: control.PluginSource, Path: built, SHA256: sum(t, built), TimeoutSeconds: 2, Env: map[string]string{"FAULT": fault},
	}
}

// start returns a host of the plugin bad.
func start(t testing.TB, p control.Plugin, life lifetimes) *testHost {
	t.Helper()
	dir, err := os.MkdirTemp("", "th")
	if err != nil {
		t.Fatal(err)
	}
	h := &testHost{}
	h.Host, err = newHost(map[string]control.Plugin{"bad": p}, dir, func(e Event) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.events = append(h.events, e)
	}, life)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		h.Close()
		os.RemoveAll(dir)
	})
	return h
}

// wait waits for an event.
func (h *testHost) wait(t *testing.T, what string) Event {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; {
		h.mu.Lock()
		i := slices.IndexFunc(h.events, func(e Event) bool { return e.What == what })
		var e Event
		if i >= 0 {
			e = h.events[i]
			h.events = slices.Delete(h.events, i, i+1)
		}
		h.mu.Unlock()
		if i >= 0 {
			return e
		}
		if time.Now().After(deadline) {
			t.Fatalf("no event %q", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// said is all that a host says of its plugins, anywhere.
func (h *testHost) said(err error) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	text := ""
	if err != nil {
		text = err.Error()
	}
	for _, e := range h.events {
		if e.Err != nil {
			text += e.Err.Error() + e.Err.Hint
		}
	}
	b, jerr := json.Marshal(h.List())
	if jerr != nil {
		panic(jerr)
	}
	return text + string(b)
}

func code(err error) Code {
	var e *Error
	if !errors.As(err, &e) {
		return ""
	}
	return e.Code
}

// TestAttack33Plugin has a plugin misbehave in every way that is known, and looks that it is contained, that the error
// names it, and that nothing it said is repeated.
func TestAttack33Plugin(t *testing.T) {
	for _, tt := range []struct {
		fault string
		want  Code
		event string // that comes of it; empty: the process goes on
	}{
		{"exit at start", CodeCrashed, Failed},
		{"not a plugin", CodeNotAPlugin, Failed},
		{"endless line", CodeNotAPlugin, Failed},
		{"flood at start", CodeFlooded, Failed},
		{"other socket", CodeNotAPlugin, Failed},
		{"other network", CodeNotAPlugin, Failed},
		{"no certificate", CodeNotAPlugin, Failed},
		{"wrong certificate", CodeNotAPlugin, Failed},
		{"version 2", CodeVersion, Failed},
		{"net/rpc", CodeNotAPlugin, Failed},
		{"signer", CodeKind, Failed},
		{"configuration", CodeConfig, Failed},
		{"crash", CodeCrashed, Failed},
		{"panic", CodeCrashed, Failed},
		{"memory", CodeCrashed, Failed},
		{"stop", CodeTimeout, Failed},
		{"hang", CodeTimeout, ""},
		{"flood stderr", CodeFlooded, Failed},
		{"flood stdout", CodeFlooded, Failed},
		{"stderr and error", CodeFailed, ""},
		{"stderr and crash", CodeCrashed, Failed},
		{"huge", CodeAnswer, ""},
		{"too long", CodeAnswer, ""},
		{"empty", CodeAnswer, ""},
		{"expired", CodeAnswer, ""},
		{"version of control characters", CodeAnswer, ""},
		{"version that is the secret", CodeAnswer, ""},
		{"version that is its half", CodeAnswer, ""},
		{"not found", CodeNotFound, ""},
		{"denied", CodeDenied, ""},
		{"unavailable", CodeUnavailable, ""},
	} {
		t.Run(tt.fault, func(t *testing.T) {
			t.Parallel()
			p := declare(t, tt.fault)
			if tt.fault == "memory" {
				p.MemoryMiB, p.TimeoutSeconds = 256, 30
			}
			h := start(t, p, quick)
			began := time.Now()
			sec, err := h.Fetch(t.Context(), "bad", "hang")
			if err == nil || code(err) != tt.want {
				t.Errorf("%d bytes, %v; want %s", len(sec.Value), err, tt.want)
			}
			if d := time.Since(began); d > time.Minute {
				t.Errorf("it took %v", d)
			}
			text := h.said(err)
			if tt.event != "" {
				e := h.wait(t, tt.event)
				if e.Plugin != "bad" || e.Err == nil {
					t.Errorf("event %+v", e)
				} else {
					text += e.Err.Error() + e.Err.Hint
				}
			}
			if !strings.HasPrefix(err.Error(), "plugin bad: ") {
				t.Errorf("the error does not name the plugin: %v", err)
			}
			if strings.Contains(text, "canary") || strings.Contains(text, "8sJ2nd83") {
				t.Errorf("the secret is repeated: %s", text)
			}
			t.Log(err)
		})
	}
}

// TestAttack33TwoFloods has a plugin write too much on both of its ways at once: each has a meter of its own.
func TestAttack33TwoFloods(t *testing.T) {
	h := start(t, declare(t, "good"), quick)
	if _, err := h.Fetch(t.Context(), "bad", "x"); err != nil {
		t.Fatal(err)
	}
	s := h.plugins["bad"]
	s.mu.Lock()
	r := s.current.runner
	s.mu.Unlock()
	for range 2 {
		newMeter(0, 1, r.flood).count(2)
	}
	if e := h.wait(t, Failed); e.Err == nil || e.Err.Code != CodeFlooded {
		t.Errorf("event %+v", e)
	}
}

// TestAttack33Environment has a plugin look for what it must not see.
func TestAttack33Environment(t *testing.T) {
	t.Setenv("TORNO_TEST_SECRET", "s")
	h := start(t, declare(t, "looks around"), quick)
	sec, err := h.Fetch(t.Context(), "bad", "x")
	if err != nil || string(sec.Value) != "nothing" {
		t.Errorf("it sees %q, %v", sec.Value, err)
	}
}

// TestAttack33Swapped swaps the program on disk, and writes to it in place.
func TestAttack33Swapped(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "plugin")
	text, err := os.ReadFile(built)
	if err == nil {
		err = os.WriteFile(path, text, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	p := declare(t, "crash once")
	p.Path = path
	h := start(t, p, quick)
	if _, err := h.Fetch(t.Context(), "bad", "x"); err != nil {
		t.Fatal(err)
	}
	swapped := append(slices.Clone(text), 'x')
	if err := os.WriteFile(path, swapped, 0o755); err != nil { // the one that runs is a copy, so the file is not busy
		t.Fatal(err)
	}
	if _, err := h.Fetch(t.Context(), "bad", "x"); err != nil {
		t.Errorf("the process that runs: %v", err)
	}
	if got := h.List()[0].Binary; got != control.BinaryChanged {
		t.Errorf("the list says %q", got)
	}
	h.stopAll(t)
	_, err = h.Fetch(t.Context(), "bad", "x")
	if code(err) != CodeChanged || !strings.Contains(err.Error(), sum(t, path)) {
		t.Errorf("%v, want %s with the program's SHA-256", err, CodeChanged)
	}
	os.Remove(path)
	time.Sleep(2 * quick.maxBackOff)
	if _, err = h.Fetch(t.Context(), "bad", "x"); code(err) != CodeMissing {
		t.Errorf("%v, want %s", err, CodeMissing)
	}
	if got := h.List()[0].Binary; got != control.BinaryMissing {
		t.Errorf("the list says %q", got)
	}
}

// stopAll kills the process that runs, and waits until that is known.
func (h *testHost) stopAll(t *testing.T) {
	s := h.plugins["bad"]
	s.mu.Lock()
	in := s.current
	s.mu.Unlock()
	in.runner.process.Kill()
	h.wait(t, Failed)
	time.Sleep(2 * quick.maxBackOff)
}

// TestRecovers has a plugin that crashed serve again, after a while, and others wait for one start.
func TestRecovers(t *testing.T) {
	life := quick
	life.minBackOff, life.maxBackOff = 500*time.Millisecond, time.Second
	h := start(t, declare(t, "crash once"), life)
	if _, err := h.Fetch(t.Context(), "bad", "crash"); code(err) != CodeCrashed {
		t.Fatalf("%v, want %s", err, CodeCrashed)
	}
	h.wait(t, Failed)
	if _, err := h.Fetch(t.Context(), "bad", "x"); code(err) != CodeCrashed {
		t.Errorf("%v, at once, want %s", err, CodeCrashed)
	}
	if i := h.List()[0]; i.State != control.PluginFailed || i.LastCode != string(CodeCrashed) || i.Retry.IsZero() {
		t.Errorf("%+v", i)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if _, err := h.Fetch(t.Context(), "bad", "x"); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	h.stopAll2(t)
	var all sync.WaitGroup
	starts := h.plugins["bad"].starts.Load()
	for range 40 {
		all.Go(func() {
			if _, err := h.Fetch(t.Context(), "bad", "x"); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := h.plugins["bad"].starts.Load() - starts; n != 1 {
		t.Errorf("%d starts", n)
	}
}

// stopAll2 is stopAll for longer back-offs.
func (h *testHost) stopAll2(t *testing.T) {
	h.stopAll(t)
	s := h.plugins["bad"]
	s.mu.Lock()
	wait := time.Until(s.retry)
	s.mu.Unlock()
	time.Sleep(wait)
}

// TestGood has a good plugin do all that there is.
func TestGood(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("token-4kd93mLd02mDq8"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := declare(t, "stderr")
	p.Files = map[string]string{"token": token}
	h := start(t, p, quick)
	if i := h.List()[0]; i.State != control.PluginIdle || i.Binary != control.BinaryOK {
		t.Errorf("before it is needed: %+v", i)
	}
	sec, err := h.Fetch(t.Context(), "bad", "x")
	if err != nil || string(sec.Value) != canary || sec.Version != "1" {
		t.Errorf("%d bytes, version %q, %v", len(sec.Value), sec.Version, err)
	}
	if i := h.List()[0]; i.State != control.PluginRunning || i.PID == 0 || i.Version != plugin.ProtocolVersion || i.Calls != 1 {
		t.Errorf("%+v", i)
	}
	if text := h.said(nil); strings.Contains(text, canary) {
		t.Errorf("the list repeats the secret: %s", text)
	}
	ctx, cancel := context.WithCancel(t.Context())
	changes := 0
	watches, err := h.Watch(ctx, "bad", "x", func() {
		if changes++; changes == 3 {
			cancel()
		}
	})
	if !watches || changes != 3 || err == nil {
		t.Errorf("watches %v, %d changes, %v", watches, changes, err)
	}
	for _, name := range []string{"other", ""} {
		if _, err := h.Fetch(t.Context(), name, "x"); code(err) != CodeUnknown {
			t.Errorf("a plugin %q: %v", name, err)
		}
	}
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	if _, err := h.Fetch(ctx, "bad", "x"); err == nil {
		t.Error("a call for nobody")
	}
	if got := h.Kind("bad"); got != control.PluginSource || h.Kind("other") != "" {
		t.Errorf("kind %q", got)
	}
}

func TestSign(t *testing.T) {
	p := declare(t, "signer")
	p.Kind = control.PluginSigner
	h := start(t, p, quick)
	got, err := h.Sign(t.Context(), "bad", plugin.SignRequest{Key: "k", Algorithm: plugin.HMAC, Message: []byte("m")})
	m := hmac.New(sha256.New, []byte(canary))
	m.Write([]byte("m"))
	if err != nil || !hmac.Equal(got, m.Sum(nil)) {
		t.Errorf("%x, %v", got, err)
	}
	if _, err := h.Sign(t.Context(), "bad", plugin.SignRequest{Key: "k", Algorithm: plugin.Ed25519}); code(err) != CodeInvalid {
		t.Errorf("%v, want %s", err, CodeInvalid)
	}
	p = declare(t, "short signature")
	p.Kind = control.PluginSigner
	h = start(t, p, quick)
	if _, err := h.Sign(t.Context(), "bad", plugin.SignRequest{Key: "k", Algorithm: plugin.HMAC}); code(err) != CodeAnswer {
		t.Errorf("%v, want %s", err, CodeAnswer)
	}
}

// TestStops has a plugin that nobody needs be stopped, and one that fills its directory.
func TestStops(t *testing.T) {
	life := quick
	life.idle = 100 * time.Millisecond
	h := start(t, declare(t, ""), life)
	if _, err := h.Fetch(t.Context(), "bad", "x"); err != nil {
		t.Fatal(err)
	}
	h.wait(t, Stopped)
	if i := h.List()[0]; i.State != control.PluginIdle || i.LastError != "" {
		t.Errorf("%+v", i)
	}
	if _, err := h.Fetch(t.Context(), "bad", "x"); err != nil {
		t.Errorf("once more: %v", err)
	}
	h = start(t, declare(t, "files"), quick)
	if _, err := h.Fetch(t.Context(), "bad", "x"); err != nil {
		t.Fatal(err)
	}
	if e := h.wait(t, Failed); e.Err.Code != CodeHung {
		t.Errorf("%v", e.Err)
	}
	left, err := os.ReadDir(h.dir)
	if err != nil || len(left) > 1 {
		t.Errorf("%v stay, %v", left, err)
	}
}

// TestBusy has calls wait for their turn, and not for ever.
func TestBusy(t *testing.T) {
	p := declare(t, "hang")
	p.TimeoutSeconds = 20
	h := start(t, p, quick)
	if _, err := h.Fetch(t.Context(), "bad", "x"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for range maxCalls {
		all.Go(func() { _, _ = h.Fetch(ctx, "bad", "hang") })
	}
	for deadline := time.Now().Add(10 * time.Second); len(h.plugins["bad"].room) < maxCalls && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	brief, stop := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer stop()
	if _, err := h.Fetch(brief, "bad", "x"); code(err) != CodeBusy {
		t.Errorf("%v, want %s", err, CodeBusy)
	}
	cancel()
	all.Wait()
	if _, err := h.Fetch(t.Context(), "bad", "x"); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	open := filepath.Join(dir, "open")
	if err := os.WriteFile(open, []byte("t"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{open, filepath.Join(dir, "missing"), dir} {
		p := declare(t, "")
		p.Files = map[string]string{"token": path}
		h := start(t, p, quick)
		if _, err := h.Fetch(t.Context(), "bad", "x"); code(err) != CodeConfig {
			t.Errorf("%s: %v, want %s", path, err, CodeConfig)
		}
	}
}

func TestCheckDeclaration(t *testing.T) {
	good := declare(t, "")
	for name, change := range map[string]func(p *control.Plugin){
		"kind": func(p *control.Plugin) { p.Kind = "sauce" },
		"path": func(p *control.Plugin) { p.Path = "bad" },
		"sum":  func(p *control.Plugin) { p.SHA256 = "abc" },
		"user": func(p *control.Plugin) { p.User = "nobody-of-that-name" },
	} {
		p := good
		change(&p)
		if _, err := New(map[string]control.Plugin{"bad": p}, t.TempDir(), nil); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := New(map[string]control.Plugin{"Bad": good}, t.TempDir(), nil); err == nil {
		t.Error("name: accepted")
	}
}

// TestCheck checks plugins, and looks that what they wrote is shown without the secrets that are known.
func TestCheck(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("token-4kd93mLd02mDq8"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := declare(t, "stderr")
	p.Files = map[string]string{"token": token}
	h := start(t, p, quick)
	r, err := h.Check(t.Context(), control.PluginCheck{Name: "bad", Ref: "x"})
	if err != nil || !r.OK || len(r.Steps) != 5 {
		t.Errorf("%+v, %v", r, err)
	}
	if !strings.Contains(r.Output, "the secret is") || !strings.Contains(r.Output, "raw ") {
		t.Errorf("the output is not there: %q", r.Output)
	}
	if strings.Contains(r.Output, canary) || strings.Contains(r.Output, "token-4kd93mLd02mDq8") {
		t.Errorf("the output has a secret: %q", r.Output)
	}
	if i := h.List()[0]; i.State != control.PluginIdle {
		t.Errorf("what was checked serves: %+v", i)
	}
	h = start(t, declare(t, "exit at start"), quick)
	r, err = h.Check(t.Context(), control.PluginCheck{Name: "bad"})
	if err != nil || r.OK || len(r.Steps) != 2 || r.Steps[1].Hint == "" || r.Output == "" {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err = h.Check(t.Context(), control.PluginCheck{Name: "other"}); code(err) != CodeUnknown {
		t.Error(err)
	}
}

func FuzzHandshake(f *testing.F) {
	f.Add([]byte("1|1|unix|/run/plugin/plugin123|grpc|" + strings.Repeat("A", 60)))
	f.Add([]byte("1|2|unix|/run/plugin/x|grpc|"))
	f.Add([]byte("1|1|tcp|127.0.0.1:1|netrpc"))
	f.Fuzz(func(t *testing.T, line []byte) {
		h, err := parseHandshake(line)
		if err != nil {
			if h.path != "" || h.version != 0 && !errors.Is(err, errVersion) {
				t.Errorf("%v, and %+v", err, h)
			}
			return
		}
		name, err := h.socketName("/run/plugin")
		if err == nil && filepath.Join("/run/plugin", name) != "/run/plugin/"+name {
			t.Errorf("%q leads elsewhere", name)
		}
	})
}
