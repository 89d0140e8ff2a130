package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// doctor runs the command and returns what it found, by check.
func doctor(t *testing.T) (map[string]finding, int) {
	t.Helper()
	r := torno(t, "", "doctor", "--json")
	var all []finding
	if err := json.Unmarshal([]byte(r.out), &all); err != nil {
		t.Fatalf("%v: %+v", err, r)
	}
	by := map[string]finding{}
	for _, f := range all {
		by[f.Check] = f
	}
	return by, r.code
}

func TestDoctor(t *testing.T) {
	b := newBroker(t)
	if f, _ := doctor(t); f["state"].State != "ok" || f["sockets"].State != "ok" || f["kernel"].State != "ok" || f["clock"].State != "ok" || f["namespaces"].State != "ok" {
		t.Errorf("%+v", f)
	} else if f["broker"].State != "warn" || f["broker"].Hint == "" { // the fake is of another version
		t.Errorf("a broker of another version: %+v", f["broker"])
	}
	if err := os.Mkdir(b.state, 0o755); err != nil {
		t.Fatal(err)
	}
	if f, code := doctor(t); f["state"].State != "fail" || f["state"].Hint != "chmod 700 "+b.state || code != 1 {
		t.Errorf("state that others reach: %+v, exit %d", f["state"], code)
	}
	t.Setenv("TORNO_STATE", filepath.Join(b.state, "other"))
	if f, _ := doctor(t); f["broker"].State != "fail" || f["state"].State != "ok" {
		t.Errorf("a broker of other state: %+v", f)
	}
	if os.Geteuid() == 0 {
		dir := t.TempDir()
		if err := os.Chmod(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(dir, 65534, -1); err != nil {
			t.Fatal(err)
		}
		t.Setenv("TORNO_STATE", dir)
		if f, _ := doctor(t); f["state"].State != "fail" {
			t.Errorf("state of another user: %+v", f["state"])
		}
	}
}
