package main_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// stop ends the broker as systemd does.
func (h *house) stop() {
	h.t.Helper()
	if err := h.serve.Process.Signal(os.Interrupt); err != nil {
		h.t.Fatal(err)
	}
	_, _ = h.serve.Process.Wait()
}

// A store whose file is cut short under the broker, or damaged before it starts, is refused with what is wrong and what to
// do; that is done, and all is there again.
func TestAttack35DamagedStore(t *testing.T) {
	h := newHouse(t, "")
	h.secrets()
	h.must("store", "backup", "kept")
	file := filepath.Join(h.dir, "state", "store.db")
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	refused := func(when string, r result) {
		t.Helper()
		if r.code != 1 || !strings.Contains(r.stderr, "the store's file is damaged: ") || !strings.Contains(r.stderr, "\nhint: ") || !strings.Contains(r.stderr, "store restore") {
			t.Errorf("%s: exit %d, %q", when, r.code, r.stderr)
		}
	}
	if err := os.Truncate(file, 5000); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"secrets", "list", "my-agent"}, {"secrets", "set", "my-agent", "ACME_TOKEN=" + customKey, "--host", "acme.example"}, {"store", "verify"}, {"store", "backup", "worse"}} {
		refused("cut short under the broker: "+args[0]+" "+args[1], h.torno(args...))
	}
	h.must("audit", "verify")
	h.stop()
	refused("cut short", h.torno("serve", "--config", "broker.toml"))
	if err := os.WriteFile(file, bytes.ReplaceAll(whole, []byte("sessions"), []byte("\x00essions")), 0o600); err != nil {
		t.Fatal(err)
	}
	refused("edited", h.torno("serve", "--config", "broker.toml"))
	h.must("store", "restore", "--force", "kept")
	h.startBroker()
	if out := h.must("secrets", "list", "my-agent"); !strings.Contains(out, "ANTHROPIC_API_KEY") {
		t.Error(out)
	}
	h.must("store", "verify")
}
