package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestScripts runs testdata/script: what a person types and what comes of it, with the real commands and
// a broker that the first of them starts. Secrets there are made up.
func TestScripts(t *testing.T) {
	if testing.Short() {
		t.Skip("needs real processes; run without -short")
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"stopbroker": func(ts *testscript.TestScript, _ bool, _ []string) {
				stopBroker(t, filepath.Join(ts.Getenv("XDG_RUNTIME_DIR"), "torno", "control"))
			},
			"killbroker": func(ts *testscript.TestScript, _ bool, _ []string) {
				killBroker(t, filepath.Join(ts.Getenv("TORNO_STATE"), "lock"))
			},
			"waitbroker": func(ts *testscript.TestScript, _ bool, _ []string) {
				for range 600 {
					if c, err := net.Dial("unix", filepath.Join(ts.Getenv("XDG_RUNTIME_DIR"), "torno", "control")); err == nil {
						c.Close()
						return
					}
					time.Sleep(50 * time.Millisecond)
				}
				ts.Fatalf("no broker answers")
			},
		},
		Setup: func(e *testscript.Env) error {
			runtime, err := os.MkdirTemp("", "ts") // short, for the socket's path
			if err != nil {
				return err
			}
			e.Defer(func() {
				stopBroker(t, filepath.Join(runtime, "torno", "control"))
				os.RemoveAll(runtime)
			})
			e.Setenv("PATH", bin+":/usr/local/bin:/usr/bin:/bin")
			e.Setenv("TORNO_STATE", filepath.Join(runtime, "state")) // apart from what workloads are shown
			e.Setenv("TORNO_WORKSPACES", filepath.Join(runtime, "workspaces"))
			e.Setenv("XDG_RUNTIME_DIR", runtime)
			// The workload's user must be able to enter the working directory.
			for d := e.WorkDir; d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
				if err := os.Chmod(d, 0o755); err != nil {
					return err
				}
			}
			return nil
		},
	})
}

// killBroker ends the broker that holds a lock, with no time for anything, and waits until it has gone.
func killBroker(t *testing.T, lock string) {
	b, err := os.ReadFile(lock)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || pid < 2 {
		t.Fatalf("%q holds the lock", b)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for range 600 {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || bytes.Contains(stat, []byte(") Z ")) {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("broker %d does not end", pid)
}

// stopBroker ends the broker that answers on socket, if one does, and waits until it has gone.
func stopBroker(t *testing.T, socket string) {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
	client := http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}, Timeout: 5 * time.Second}
	resp, err := client.Get("http://torno/v1/health")
	if err != nil {
		return
	}
	defer resp.Body.Close()
	var health struct {
		PID int `json:"pid"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&health); err != nil || health.PID < 2 {
		t.Errorf("health of the broker: %+v, %v", health, err)
		return
	}
	_ = syscall.Kill(health.PID, syscall.SIGTERM)
	for range 200 {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", health.PID)) // the socket goes before the store is closed
		if err != nil || bytes.Contains(stat, []byte(") Z ")) {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("broker %d does not end", health.PID)
}
