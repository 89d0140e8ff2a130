package main_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// kill kills the broker, in the middle of whatever it does.
func (h *house) kill() {
	h.t.Helper()
	if err := h.serve.Process.Kill(); err != nil {
		h.t.Fatal(err)
	}
	_, _ = h.serve.Process.Wait()
}

// brokerTime is what the broker has had of the processor so far.
func (h *house) brokerTime() time.Duration {
	h.t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", h.serve.Process.Pid))
	if err != nil {
		h.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	var ticks time.Duration
	for _, f := range fields[11:13] { // user and system, in hundredths of a second
		n, err := strconv.Atoi(f)
		if err != nil {
			h.t.Fatal(err)
		}
		ticks += time.Duration(n)
	}
	return ticks * 10 * time.Millisecond
}

// reached returns the paths below /n/ of the canned host that requests came for, each with how often.
func (u *upstream) reached() map[string]int {
	u.mu.Lock()
	defer u.mu.Unlock()
	n := map[string]int{}
	for key, count := range u.seen {
		if _, path, ok := strings.Cut(key, " files.example.org /n/"); ok {
			n["/n/"+path] += count
		}
	}
	return n
}

// text is what the command has written after it was ready.
func (r *running) text() string {
	_, after, _ := strings.Cut(r.stdout.String(), "ready\n")
	return after
}

// load asks for /n/CLIENT.NUMBER over and over, from several clients at once, until its standard input ends, and prints each
// path that was answered with 200.
const load = `import http.client, ssl, sys, threading, time
stop = threading.Event()
def client(me):
    c, n = None, 0
    while not stop.is_set():
        n += 1
        path = "/n/%d.%d" % (me, n)
        try:
            c = c or http.client.HTTPSConnection("files.example.org", timeout=20)
            c.request("GET", path)
            r = c.getresponse()
            r.read()
            if r.status == 200:
                sys.stdout.write(path + "\n")
                sys.stdout.flush()
            else:
                time.sleep(0.02)
        except Exception:
            c = None
            time.sleep(0.02)
threads = [threading.Thread(target=client, args=(i,)) for i in range(4)]
for t in threads: t.start()
sys.stdin.read()
stop.set()
for t in threads: t.join()
`

// The broker is killed at random moments under load, and started again. Whatever reached the upstream, and so whatever
// was answered, is in the audit; the audit verifies, also against the checkpoint before; what was open is recorded as
// interrupted; the session goes on. TORNO_SOAK=1 makes it 200 times.
func TestAttack36AuditUnderLoad(t *testing.T) {
	kills := 8
	if os.Getenv("TORNO_SOAK") != "" {
		kills = 200
	}
	h := newAgentHouse(t)
	h.write("torno.toml", strings.Replace(agentFile, `"GET files.example.org"`, `"GET files.example.org/**"`, 1))
	h.write("broker.toml", h.upstream.brokerTOML()+"[limits]\naudit_records_per_second = 1048576\naudit_mib_per_hour = 1048576\n")
	h.kill()
	h.startBroker()
	h.write("load.py", load)
	r := h.startRun(nil, "echo ready; exec python3 load.py")
	var slowest, busiest time.Duration // until it is ready again: by the clock, and of the processor
	for range kills {
		answered := strings.Count(r.text(), "\n")
		r.await(t, "answers", func(string) bool { return strings.Count(r.text(), "\n") > answered+20 })
		h.write("kept", h.must("audit", "checkpoint"))
		time.Sleep(time.Duration(rand.IntN(50_000)) * time.Microsecond)
		h.kill()
		began := time.Now()
		h.startBroker()
		slowest, busiest = max(slowest, time.Since(began)), max(busiest, h.brokerTime())
		if v := h.torno("audit", "verify", "--since", "kept"); v.code != 0 {
			t.Fatal(v.stderr)
		}
	}
	answered := strings.Count(r.text(), "\n")
	r.await(t, "answers after the last", func(string) bool { return strings.Count(r.text(), "\n") > answered+20 })
	_ = r.stdin.Close()
	if err := r.Wait(); err != nil {
		t.Errorf("%v: %s", err, r.stderr)
	}
	begun, interrupted := map[string]int{}, 0
	for _, e := range h.query("--host", "files.example.org") {
		if e.Type == "begin" {
			begun[e.Path]++
			if e.End == nil {
				t.Errorf("record %d has no end", e.Seq)
			} else if e.End.Interrupted {
				interrupted++
			}
		}
	}
	lost := 0
	for path, n := range h.upstream.reached() {
		if begun[path] < n {
			lost++
		}
	}
	for _, path := range strings.Fields(r.text()) {
		if begun[path] == 0 {
			lost++
		}
	}
	h.must("audit", "verify", "--since", "kept")
	t.Logf("%d kills, %d answers, %d beginnings, %d interrupted; ready again within %v, %v of the processor", kills, strings.Count(r.text(), "\n"), len(begun), interrupted, slowest, busiest)
	if busiest > time.Second { // the clock's second is make soak's, on a machine that does nothing else
		t.Errorf("a broker took %v of the processor until it was ready", busiest)
	}
	if lost > 0 || len(begun) < 20*kills || len(h.upstream.reached()) < 20*kills {
		t.Errorf("%d requests were sent and are not in the audit, of %d that are", lost, len(begun))
	}
}

// flood asks with heads that make large records until it is refused, waits for a file, and asks again.
const flood = `import http.client, os, sys, time
c, sent = None, 0
def ask():
    global c, sent
    c = c or http.client.HTTPSConnection("files.example.org", timeout=60)
    sent += 1
    c.request("GET", "/n/%d" % sent, headers={"x-%03d-%s" % (i, "n" * 120): "v" for i in range(200)})
    r = c.getresponse()
    r.read()
    return r.status, r.getheader("torno-reason")
while True:
    status, reason = ask()
    if status != 200 or sent > 20000: break
print(status, reason, flush=True)
while not os.path.exists("room"): time.sleep(0.05)
for _ in range(1200):
    status, reason = ask()
    if status == 200: break
    time.sleep(0.05)
print(status, reason, flush=True)
`

// A disk that is full refuses exchanges with the reason, and nothing that is refused reaches the upstream. With room again,
// the same broker goes on. All that was answered is in the audit.
func TestAttack37DiskFullServe(t *testing.T) {
	h := newAgentHouse(t)
	h.kill()
	state := filepath.Join(h.dir, "state")
	if err := unix.Mount("tmpfs", state, "tmpfs", 0, "size=24m,mode=700"); err != nil { // one segment fits, two do not
		t.Fatalf("mounts a small file system (run as root): %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(state, unix.MNT_DETACH) })
	h.write("broker.toml", h.upstream.brokerTOML()+"[limits]\naudit_records_per_second = 1048576\naudit_mib_per_hour = 1048576\n")
	h.startBroker()
	h.secrets()
	h.write("torno.toml", strings.Replace(agentFile, `"GET files.example.org"`, `"GET files.example.org/**"`, 1))
	h.write("flood.py", flood)
	r := h.startRun(nil, "echo ready; exec python3 flood.py")
	r.await(t, "a refusal", func(string) bool { return strings.HasSuffix(r.text(), "\n") })
	if out := r.text(); out != "503 audit_unavailable\n" {
		t.Errorf("a full disk: %q, %s", out, r.stderr)
	}
	recorded := func() map[string]bool {
		all := map[string]bool{}
		for _, e := range h.query("--host", "files.example.org") {
			if e.Type == "begin" && e.End != nil && e.End.Status == 200 {
				all[e.Path] = true
			}
		}
		return all
	}
	compare := func(when string) {
		t.Helper()
		all, reached := recorded(), h.upstream.reached()
		if len(all) != len(reached) || len(all) < 100 {
			t.Errorf("%s: %d requests are in the audit, %d reached the upstream", when, len(all), len(reached))
		}
		h.must("audit", "verify")
	}
	compare("full")
	if err := unix.Mount("", state, "", unix.MS_REMOUNT, "size=64m,mode=700"); err != nil {
		t.Fatal(err)
	}
	h.write("room", "")
	if err := r.Wait(); err != nil {
		t.Errorf("%v: %s", err, r.stderr)
	}
	if out := r.text(); !strings.HasSuffix(out, "\n200 None\n") {
		t.Errorf("with room again: %q", out)
	}
	compare("with room again")
	if !strings.Contains(h.log.String(), "could not be recorded") {
		t.Error("the broker's log does not say so")
	}
}
