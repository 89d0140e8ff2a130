package main_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestControlPageCommands runs every block of shell in the page about the control API, in order, against a real broker.
func TestControlPageCommands(t *testing.T) {
	page, err := os.ReadFile("../docs/control-api.md")
	if err != nil {
		t.Fatal(err)
	}
	runtime, err := os.MkdirTemp("", "tr") // short, for the socket's path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stopBroker(t, filepath.Join(runtime, "torno", "control"))
		os.RemoveAll(runtime)
	})
	vm := filepath.Join(runtime, "vm")
	if err := os.Mkdir(vm, 0o700); err != nil {
		t.Fatal(err)
	}
	script := "torno secrets list >/dev/null\n" // which starts a broker
	blocks := regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(page), -1)
	for _, b := range blocks {
		script += b[1] + "echo; echo done\n"
	}
	cmd := exec.Command("bash", "-euc", script)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "XDG_RUNTIME_DIR="+runtime, "TORNO_STATE="+filepath.Join(runtime, "state"), "VM="+vm)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{`"state_dir"`, `"verdict":"deny"`, `"state":"waiting"`, `"state":"ended"`, `"code":"not_found"`, `"type":"stream_opened"`} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %s in\n%s", want, out)
		}
	}
	if n := strings.Count(string(out), "done"); n != len(blocks) || n < 3 {
		t.Errorf("%d of %d blocks ended", n, len(blocks))
	}
}
