package broker

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"torno.internal/broker/internal/audit"
	"torno.internal/protocol/control"
)

// commits returns the audit's events of the store.
func (d *desk) commits() []control.AuditRecord {
	d.t.Helper()
	records, err := audit.CommitsSince(filepath.Join(d.cfg.StateDir, "audit"), 0)
	d.must(err)
	return records
}

// Every change of the store is an event in the audit with the commit's number and its manifest.
func TestCommitsAreRecorded(t *testing.T) {
	d := newDesk(t, nil)
	d.must(d.set("a", "K_ONE", testKey, 1))
	d.must(d.set("a", "K_ONE", testKey, 2))
	if err := d.call("DELETE", control.PathSecrets+"?agent=a&name=K_ONE", nil, nil); err != nil {
		t.Fatal(err)
	}
	got := d.commits()
	want := []string{"secret_set", "secret_set", "secret_deleted"}
	if len(got) != len(want) {
		t.Fatalf("%d records, want %d", len(got), len(want))
	}
	for i, r := range got {
		if r.Event != want[i] || r.Commit != uint64(i+1) || len(r.Manifest) != 64 || r.Secret != "K_ONE" {
			t.Errorf("record %d: %+v", i, r)
		}
	}
}

// An older store beside a newer audit: what was changed since is named in the list and in the audit, it is
// refused, and the agent's other secrets can be used once the agent file declares them alone.
func TestAttack35OlderStore(t *testing.T) {
	d := newDesk(t, nil)
	d.must(d.set("a", "K_ONE", testKey, 1))
	d.must(d.set("a", "K_TWO", testKey, 1))
	d.stop()
	path := filepath.Join(d.cfg.StateDir, "store.db")
	older, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	d.start()
	d.must(d.set("a", "K_ONE", testKey, 2))
	d.stop()
	if err := os.WriteFile(path, older, 0o600); err != nil {
		t.Fatal(err)
	}
	d.start()
	var infos []control.SecretInfo
	if err := d.call("GET", control.PathSecrets+"?agent=a", nil, &infos); err != nil {
		t.Fatal(err)
	}
	broken := map[string]bool{}
	for _, i := range infos {
		broken[i.Name] = i.Broken != ""
	}
	if len(broken) != 2 || !broken["K_ONE"] || broken["K_TWO"] {
		t.Errorf("list: %+v", infos)
	}
	check := func(declares ...string) error {
		var v control.PolicyVerdict
		return d.call("POST", control.PathPolicyCheck, control.PolicyCheck{Agent: "a", Method: "GET", URL: "https://api.example.org/",
			Policy: &control.AgentPolicy{Name: "a", Secrets: declares}}, &v)
	}
	var refused *control.Error
	if err := check("K_ONE", "K_TWO"); !errors.As(err, &refused) || refused.Code != control.CodeTampered || !strings.Contains(refused.Message, "K_ONE") {
		t.Errorf("with the broken one: %v", err)
	}
	if err := check("K_TWO"); err != nil {
		t.Errorf("with the other: %v", err)
	}
	events := d.commits()
	last := events[len(events)-1]
	if last.Event != "store_rolled_back" || last.Secret != "K_ONE" || last.Version != 2 {
		t.Errorf("recorded: %+v", last)
	}
	d.must(d.set("a", "K_ONE", testKey, 3))
	if err := check("K_ONE", "K_TWO"); err != nil {
		t.Errorf("set anew: %v", err)
	}
}
