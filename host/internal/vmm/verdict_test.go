package vmm

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"
)

func open(t *testing.T, path string) *verdicts {
	t.Helper()
	v, err := openVerdicts(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.close)
	return v
}

func TestVerdicts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kvm.json")
	micro := verdict{Boot: "1", QEMU: "q", Kernel: "k", Machine: MicroVM}
	q35 := micro
	q35.Machine = Q35
	v := open(t, path)
	if _, known := v.find(micro); known {
		t.Error("a verdict in a new file")
	}
	v.add(micro)
	works := q35
	works.Works = true
	v.add(works)
	v.close()
	v = open(t, path)
	if works, known := v.find(micro); !known || works {
		t.Errorf("microvm: works %v, known %v; want false, true", works, known)
	}
	if works, known := v.find(q35); !known || !works {
		t.Errorf("q35: works %v, known %v; want true, true", works, known)
	}
	later := micro
	later.Boot = "2"
	if _, known := v.find(later); known {
		t.Error("a verdict of an earlier boot")
	}
	v.add(later)
	for i := range 2 * maxVerdicts {
		later.Kernel = strconv.Itoa(i)
		v.add(later)
	}
	v.close()
	if v = open(t, path); len(v.all) != maxVerdicts || v.all[0] != later {
		t.Errorf("%d verdicts, the first is %+v; want %d of this boot alone, the newest first", len(v.all), v.all[0], maxVerdicts)
	}
}

// What is no file of verdicts counts as one without any, and becomes one.
func TestVerdictsDamaged(t *testing.T) {
	for name, content := range map[string]string{
		"empty": "", "cut short": `[{"boot":"1","qemu`, "something else": `{"boot":"1"}`, "zeros": "\x00\x00\x00",
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "kvm.json")
			if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
			v := open(t, path)
			if len(v.all) != 0 {
				t.Fatalf("%+v", v.all)
			}
			v.add(verdict{Boot: "1", Works: true})
			v.close()
			if v = open(t, path); len(v.all) != 1 || !v.all[0].Works {
				t.Errorf("%+v", v.all)
			}
		})
	}
	if v := open(t, filepath.Join(t.TempDir(), "not", "there")); v.file != nil {
		t.Error("a file in a directory that is not there")
	}
}

// Of several who ask at the same time one finds out, and the others learn it from the file.
func TestVerdictsConcurrently(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kvm.json")
	var mu sync.Mutex
	probes := 0
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			v, err := openVerdicts(t.Context(), path)
			if err != nil {
				t.Error(err)
				return
			}
			defer v.close()
			if _, known := v.find(verdict{Boot: "1"}); known {
				return
			}
			mu.Lock()
			probes++
			mu.Unlock()
			time.Sleep(10 * time.Millisecond)
			v.add(verdict{Boot: "1"})
		})
	}
	all.Wait()
	if probes != 1 {
		t.Errorf("%d probes, want 1", probes)
	}
	v := open(t, path)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := openVerdicts(ctx, path); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while somebody probes: %v", err)
	}
	v.close()
}
