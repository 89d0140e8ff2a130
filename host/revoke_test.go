package main_test

import (
	"bufio"
	"encoding/json"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A caller is a run whose workload calls an API without end, and prints what came of each call.
type caller struct {
	t     *testing.T
	cmd   *exec.Cmd
	lines chan string
}

func (h *house) startCaller() *caller {
	h.t.Helper()
	cmd := h.command("run", "--agent", "my-agent", "--isolation", "namespace", "--", "sh", "-c",
		`while true; do curl -s -m 20 -o /dev/null -w '%{http_code}\n' https://api.anthropic.com/v1/models; sleep 0.1; done`)
	out, err := cmd.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	c := &caller{h.t, cmd, make(chan string, 10000)}
	go func() {
		defer close(c.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			c.lines <- s.Text()
		}
	}()
	h.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		for range c.lines { // until the run has gone
		}
		_ = cmd.Wait()
	})
	return c
}

// next returns what comes of a call that begins after now, as far as it can be told: that after the next.
func (c *caller) next() string {
	c.t.Helper()
	for len(c.lines) > 0 {
		<-c.lines
	}
	line := ""
	for range 2 {
		select {
		case line = <-c.lines:
		case <-time.After(time.Minute):
			c.t.Fatal("no call has ended for a minute")
		}
	}
	return line
}

// S15: a session is revoked and nothing is deployed: its workload reaches nothing any more, and the agent's other session
// goes on.
func TestMissionS15RevokeSession(t *testing.T) {
	h := newHouse(t, "")
	h.secrets()
	first := h.startCaller()
	if got := first.next(); got != "200" {
		t.Fatalf("before: %s", got)
	}
	var sessions []struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal([]byte(h.must("sessions", "list", "--json")), &sessions); err != nil || len(sessions) != 1 {
		t.Fatalf("%+v, %v", sessions, err)
	}
	second := h.startCaller()
	if got := second.next(); got != "200" {
		t.Fatalf("the second session: %s", got)
	}
	h.must("sessions", "revoke", sessions[0].ID)
	if got := first.next(); got == "200" {
		t.Error("the revoked session's calls are answered")
	}
	if got := second.next(); got != "200" {
		t.Errorf("the other session: %s", got)
	}
	if out := h.must("sessions", "show", sessions[0].ID); !strings.Contains(out, "state      revoked\n") {
		t.Errorf("shown:\n%s", out)
	}
}
