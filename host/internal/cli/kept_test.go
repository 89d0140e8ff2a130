package cli

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"torno.internal/host/internal/workspace"
)

// openWork opens a directory with one file as a workspace that has gone in.
func openWork(t *testing.T) *workspace.Workspace {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a"), []byte("1"), 0o644); err != nil {
		t.Fatal(err)
	}
	w, err := workspace.Open(dir)
	if err == nil {
		err = w.Send(io.Discard)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

// What is kept is listed once its run has ended; what a run left before its command began is removed; nothing
// else in the place is touched.
func TestKept(t *testing.T) {
	place := t.TempDir()
	t.Setenv("TORNO_WORKSPACES", place)
	if err := os.Mkdir(filepath.Join(place, "mine"), 0o700); err != nil {
		t.Fatal(err)
	}
	w := openWork(t)
	full, err := newKept(64 << 20)
	if err == nil {
		err = full.save(w)
	}
	if err != nil {
		t.Fatal(err)
	}
	empty, err := newKept(64 << 20)
	if err != nil {
		t.Fatal(err)
	}
	if all, err := listKept(); err != nil || len(all) != 0 {
		t.Errorf("while both runs go on: %v, %v", all, err)
	}
	if _, err := openKept(full.id); !errors.Is(err, errBusy) {
		t.Errorf("one that a run works with: %v", err)
	}
	full.close()
	empty.close()
	all, err := listKept()
	if err != nil || len(all) != 1 || all[0].ID != full.id || all[0].Directory != w.Dir() || all[0].Bytes <= 0 || all[0].Bytes > 32<<20 {
		t.Errorf("%+v, %v", all, err)
	}
	left, err := os.ReadDir(place)
	if err != nil || len(left) != 2 || left[1].Name() != "mine" {
		t.Errorf("%v, %v", left, err)
	}
	again, err := openKept(full.id)
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := again.load()
	if err != nil || loaded.Dir() != w.Dir() {
		t.Fatal(err)
	}
	loaded.Close()
	again.remove()
	for _, id := range []string{full.id, "", ".", "..", "../x", "mine", "20260102-150405-3f9a01"} {
		if _, err := openKept(id); err == nil || hintOf(err) != "torno workspace list" {
			t.Errorf("%q: %v", id, err)
		}
	}
}

// Names that a guest chose are printed without what a terminal would obey, and not without end.
func TestPrintReport(t *testing.T) {
	var out bytes.Buffer
	r := &workspace.Report{Changed: 1, Held: []workspace.Note{{Name: "\x1b[2J\n.envrc", Why: "a link to \x07"}}}
	for range maxNotes + 5 {
		r.Left = append(r.Left, workspace.Note{Name: "n", Why: "w"})
	}
	printReport(&out, r)
	for _, want := range []string{"workspace: 1 changed, 0 deleted\n", `.torno-review: \x1b[2J\n.envrc (a link to \a)` + "\n", "not copied back: 5 more\n", "--accept-host-code\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in %q", want, out.String())
		}
	}
	if lines := strings.Count(out.String(), "\n"); strings.ContainsAny(out.String(), "\x1b\x07") || lines != maxNotes+4 {
		t.Errorf("%d lines: %q", lines, out.String())
	}
}

func TestCheckRoom(t *testing.T) {
	w := &work{Workspace: openWork(t)}
	if err := w.checkRoom(perFile+1, "it", "hint"); err != nil {
		t.Error(err)
	}
	if err := w.checkRoom(perFile, "it", "more"); err == nil || hintOf(err) != "more" {
		t.Errorf("too little room: %v", err)
	}
}

func TestParsePublish(t *testing.T) {
	for s, want := range map[string][2]uint16{"8080": {8080, 8080}, "3000:8080": {3000, 8080}, "0:1": {0, 1}, "65535": {65535, 65535}} {
		if host, guest, err := parsePublish(s); err != nil || host != want[0] || guest != want[1] {
			t.Errorf("%q: %d, %d, %v", s, host, guest, err)
		}
	}
	for _, s := range []string{"", "0", ":", "1:", ":1", "1:0", "65536", "-1", "+1", "1:2:3", "127.0.0.1:80", "0x10", " 1"} {
		var usage usageError
		if _, _, err := parsePublish(s); !errors.As(err, &usage) {
			t.Errorf("%q: %v", s, err)
		}
	}
	if err := checkPublish(make([]string, maxPorts+1)); err == nil {
		t.Error("any number of ports")
	}
}
