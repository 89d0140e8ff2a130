package main_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"torno.internal/protocol/control"
)

// TestPlugin declares the plugin for .env files as torno plugin check says, and looks at it and uses it by the command.
func TestPlugin(t *testing.T) {
	if testing.Short() {
		t.Skip("needs real processes; run without -short")
	}
	dir, err := os.MkdirTemp("/tmp", "pl") // short, for the socket's path
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	defer stopBroker(t, filepath.Join(dir, "torno", "control"))
	public := filepath.Join(dir, "public") // where the plugin, which is nobody's user, comes through
	for path, mode := range map[string]os.FileMode{dir: 0o755, public: 0o755, filepath.Join(dir, "state"): 0o700} {
		if err := os.MkdirAll(path, mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	const value = "elsewhere-made-up-0123456789abcdef"
	if err := os.WriteFile(filepath.Join(public, "app.env"), []byte("API_KEY="+value+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "torno-plugin-envfile")
	build := exec.Command("go", "build", "-o", program, "../plugins/envfile")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	torno := func(code int, args ...string) string {
		t.Helper()
		cmd := exec.Command(filepath.Join(bin, "torno"), args...)
		cmd.Env = []string{"PATH=" + bin + ":/usr/bin:/bin", "HOME=" + dir, "XDG_RUNTIME_DIR=" + dir, "TORNO_STATE=" + filepath.Join(dir, "state")}
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != code {
			t.Fatalf("torno %v: %v\n%s", args, err, out)
		}
		if strings.Contains(string(out), value) {
			t.Errorf("torno %v prints the secret", args)
		}
		return string(out)
	}
	stanza := torno(0, "plugin", "check", program)
	config := stanza + "paths = [\"" + public + "\"]\n[plugins.envfile.config]\npath = \"" + filepath.Join(public, "app.env") + "\"\n"
	if err := os.WriteFile(filepath.Join(dir, "state", "broker.toml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	list := torno(0, "plugin", "list")
	if !strings.Contains(list, "envfile") || !strings.Contains(list, "source") || !strings.Contains(list, "ok") || !strings.Contains(list, "idle") {
		t.Errorf("%s", list)
	}
	good := torno(0, "plugin", "check", "envfile", "--ref", "API_KEY")
	for _, want := range []string{"handshake", "configuration", "fetch", "34 bytes, version "} {
		if !strings.Contains(good, want) {
			t.Errorf("%q is not in\n%s", want, good)
		}
	}
	bad := torno(1, "plugin", "check", "envfile", "--ref", "NOTHING")
	if !strings.Contains(bad, "FAIL  fetch") || !strings.Contains(bad, `no "NOTHING"`) { // what the plugin said, to its operator
		t.Errorf("%s", bad)
	}
	var r control.PluginReport
	if err := json.Unmarshal([]byte(torno(0, "plugin", "check", "envfile", "--json")), &r); err != nil || !r.OK {
		t.Errorf("%+v, %v", r, err)
	}
	if out := torno(1, "plugin", "check", "vault"); !strings.Contains(out, "hint: torno plugin list") {
		t.Errorf("%s", out)
	}
	set := torno(0, "secrets", "set", "my-agent", "API_KEY", "--source", "envfile:API_KEY", "--host", "api.acme.example")
	if !strings.Contains(set, "API_KEY: set, version 1, goes to api.acme.example as bearer, follow, from envfile:API_KEY") {
		t.Errorf("%s", set)
	}
	if out := torno(0, "secrets", "list", "my-agent"); !strings.Contains(out, "from envfile:API_KEY") {
		t.Errorf("%s", out)
	}
	torno(2, "secrets", "set", "my-agent", "API_KEY=x", "--source", "envfile:API_KEY", "--host", "api.acme.example")
	torno(1, "secrets", "set", "my-agent", "API_KEY", "--source", "vault:API_KEY", "--host", "api.acme.example")
	if err := os.WriteFile(program, []byte("swapped"), 0o755); err != nil {
		t.Fatal(err)
	}
	if out := torno(0, "plugin", "list"); !strings.Contains(out, "changed") {
		t.Errorf("%s", out)
	}
	if out := torno(1, "plugin", "check", "envfile"); !strings.Contains(out, "SHA-256") {
		t.Errorf("%s", out)
	}
}
