package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A workspace in a VM: in, back and a published port; what a VM that died has left is got from its disk by
// another; what the person did not wait for is kept, and recovered later.
func TestVMWorkspace(t *testing.T) {
	needVM(t)
	h := newAgentHouse(t)
	files := map[string]string{"a": "1", "b": "2", "gone": "3", "torno.toml": agentFile}
	work := `echo theirs >a; echo theirs >b; rm gone; mkdir n; echo new >n/f; echo evil >.envrc; `
	want := map[string]string{"a": "mine", "a.torno-conflict": "theirs\n", "b": "theirs\n", "gone": "", "n/f": "new\n", ".envrc": "", ".torno-review/.envrc": "evil\n"}
	begin := func(script string) (*running, string) {
		dir := h.project(files)
		r := h.startRun([]string{"--workspace", dir, "--disk", "1G", "--memory", "512M"}, work+script)
		if err := os.WriteFile(filepath.Join(dir, "a"), []byte("mine"), 0o644); err != nil {
			t.Fatal(err)
		}
		return r, dir
	}

	t.Run("in and back", func(t *testing.T) {
		dir := h.project(files)
		testPublish(t, h, []string{"--workspace", dir})
		r, dir := begin("trap 'exit 3' INT; sleep 100 & echo ready; wait")
		_ = r.Process.Signal(os.Interrupt)
		_ = r.Wait()
		if code := r.ProcessState.ExitCode(); code != 3 || !strings.Contains(r.stderr.String(), "changed on both sides: a ") {
			t.Errorf("exit %d, stderr %q", code, r.stderr)
		}
		holds(t, dir, want)
	})
	t.Run("the VM dies", func(t *testing.T) {
		r, dir := begin("sync; echo ready; sleep 100")
		if out, err := exec.Command("pkill", "-KILL", "-P", fmt.Sprint(r.Process.Pid), "-x", "qemu-system-x86").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		_ = r.Wait()
		if code := r.ProcessState.ExitCode(); code != 125 || !strings.Contains(r.stderr.String(), "gets the workspace from its disk") || h.keptID() != "" {
			t.Errorf("exit %d, stderr %q", code, r.stderr)
		}
		holds(t, dir, want)
	})
	t.Run("nobody waits", func(t *testing.T) {
		r, dir := begin("sync; trap '' INT TERM; echo ready; while :; do sleep 100; done")
		if err := r.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		_ = exec.Command("pkill", "-STOP", "-P", fmt.Sprint(r.Process.Pid), "-x", "qemu-system-x86").Run() // so that it can't come back in time
		for range 2 {
			time.Sleep(200 * time.Millisecond)
			_ = r.Process.Signal(os.Interrupt)
		}
		_ = r.Wait()
		id := h.keptID()
		if code := r.ProcessState.ExitCode(); code != 130 || id == "" || !strings.Contains(r.stderr.String(), "hint: torno workspace recover "+id) {
			t.Fatalf("exit %d, kept %q, stderr %q", code, id, r.stderr)
		}
		holds(t, dir, map[string]string{"a": "mine", "b": "2", "gone": "3"})
		testRecover(t, h, id)
		holds(t, dir, want)
	})
	t.Run("torno run is killed", func(t *testing.T) {
		r, dir := begin("sync; echo ready; sleep 100")
		_ = r.Process.Kill()
		_ = r.Wait()
		id := ""
		for deadline := time.Now().Add(patience); id == "" && time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
			id = h.keptID() // once QEMU has gone, too
		}
		h.must("workspace", "recover", "--accept-host-code", id)
		holds(t, dir, map[string]string{"a": "mine", "b": "theirs\n", ".envrc": "evil\n"})
	})
}

// testRecover recovers a kept workspace, after a disk that holds no file system was refused and stayed kept.
func testRecover(t *testing.T, h *house, id string) {
	t.Helper()
	disk, err := os.OpenFile(filepath.Join(h.dir, "workspaces", id, "disk"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	superblock := make([]byte, 4096)
	if _, err := disk.ReadAt(superblock, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := disk.WriteAt(make([]byte, 4096), 0); err != nil {
		t.Fatal(err)
	}
	if r := h.torno("workspace", "recover", id); r.code != 1 || !strings.Contains(r.stderr, "torno-scratch") || h.keptID() != id {
		t.Errorf("a disk without a file system: exit %d, %q, kept %q", r.code, r.stderr, h.keptID())
	}
	if _, err := disk.WriteAt(superblock, 0); err != nil {
		t.Fatal(err)
	}
	if r := h.torno("workspace", "recover", id); r.code != 0 || h.keptID() != "" {
		t.Errorf("exit %d, %q, kept %q", r.code, r.stderr, h.keptID())
	}
	if r := h.torno("workspace", "recover", id); r.code != 1 || !strings.Contains(r.stderr, "hint: torno workspace list") {
		t.Errorf("once more: exit %d, %q", r.code, r.stderr)
	}
}
