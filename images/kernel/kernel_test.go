package kernel

import (
	"context"
	"os"
	"slices"
	"testing"
	"time"
)

// Debian's own kernel is fetched, taken apart and read back.
func TestFetch(t *testing.T) {
	if _, err := os.Stat("/etc/debian_version"); err != nil {
		t.Skip("Debian's packages are to be had on Debian alone")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	s := Store{t.TempDir()}
	k, err := s.Fetch(ctx, func(line string) { t.Log(line) }, func(string, int64, int64) {})
	if err != nil {
		t.Fatal(err)
	}
	again, err := s.Open("")
	if err != nil || again.Release != k.Release {
		t.Fatalf("%+v, %v", again, err)
	}
	modules, contents, err := again.Load(Common, MMIO, Container)
	if err != nil || len(modules) != len(contents) {
		t.Fatal(err)
	}
	var names []string
	for _, m := range modules {
		for _, need := range m.Needs {
			if !slices.Contains(names, need) && !slices.Contains(k.Builtin, need) {
				t.Errorf("%s comes before %s, which it needs", m.Name, need)
			}
		}
		names = append(names, m.Name)
	}
	t.Log(names)
	for _, want := range slices.Concat(wanted[Common], wanted[MMIO], wanted[Container]) {
		if !slices.Contains(names, want.module) && !slices.Contains(k.Builtin, want.module) {
			t.Errorf("no %s: %s", want.module, want.why)
		}
	}
	if err := os.Truncate(k.Path(), 1000); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open(""); err == nil {
		t.Error("a kernel cut short was opened")
	}
}
