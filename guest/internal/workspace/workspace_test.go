package workspace

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"torno.internal/protocol/workspace"
)

// open returns an empty workspace and the path of its copy.
func open(t testing.TB) (*Workspace, string) {
	t.Helper()
	dir := t.TempDir()
	w := &Workspace{Owner: os.Getuid()}
	for path, root := range map[string]**os.Root{filepath.Join(dir, "copy"): &w.Dir, filepath.Join(dir, "notes"): &w.Notes} {
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		var err error
		if *root, err = os.OpenRoot(path); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { (*root).Close() })
	}
	return w, filepath.Join(dir, "copy")
}

// A told is an entry with its content.
type told struct {
	workspace.Entry
	Content string
}

func pack(t testing.TB, entries ...told) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := workspace.NewWriter(&b)
	for _, e := range entries {
		e.Size = int64(len(e.Content))
		err := w.Add(&e.Entry)
		if err == nil {
			_, err = w.Write([]byte(e.Content))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

// toldBy returns what w tells, as far as the host needs to know it.
func toldBy(t testing.TB, w *Workspace) []told {
	t.Helper()
	var b bytes.Buffer
	if err := w.Changes(&b); err != nil {
		t.Fatal(err)
	}
	r := workspace.NewReader(&b, workspace.Limits{})
	var all []told
	for {
		e, err := r.Next()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		e.Size, e.Modified = 0, time.Time{}
		all = append(all, told{*e, string(content)})
	}
}

func file(name, content string) told {
	return told{workspace.Entry{Name: name, Kind: workspace.File}, content}
}

func of(kind workspace.Kind, name, target string) told {
	return told{Entry: workspace.Entry{Name: name, Kind: kind, Target: target}}
}

// sample is what goes in.
func sample() []told {
	old := file("old", "from long ago")
	old.Modified = time.Unix(1_000_000_000, 0)
	script := file("run.sh", "#!/bin/sh\n")
	script.Executable = true
	return []told{of(workspace.Directory, "d", ""), file("d/a\nb", "a"), of(workspace.Directory, "d/e", ""), file("d/e/c", "c"),
		file("empty", ""), of(workspace.Symlink, "link", "d/e"), old, script, of(workspace.Directory, "unused", "")}
}

func TestFill(t *testing.T) {
	w, dir := open(t)
	if err := w.Fill(pack(t, sample()...)); err != nil {
		t.Fatal(err)
	}
	if got := toldBy(t, w); got != nil {
		t.Errorf("changes before there were any: %+v", got)
	}
	old, err := os.Stat(filepath.Join(dir, "old"))
	if err != nil || old.ModTime().Unix() != 1_000_000_000 || old.Mode().Perm() != 0o644 {
		t.Errorf("%v, %v", old, err)
	}
	if script, err := os.Stat(filepath.Join(dir, "run.sh")); err != nil || script.Mode().Perm() != 0o755 {
		t.Errorf("%v, %v", script, err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "link/c")); err != nil || string(b) != "c" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestChanges(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(dir string) error
		want   []told
	}{
		{"nothing", func(string) error { return nil }, nil},
		{"content of the same size and time", func(dir string) error {
			info, err := os.Stat(dir + "/old")
			return errors.Join(err, os.WriteFile(dir+"/old", []byte("FROM LONG AGO"), 0), os.Chtimes(dir+"/old", info.ModTime(), info.ModTime()))
		}, []told{file("old", "FROM LONG AGO")}},
		{"new files", func(dir string) error {
			return errors.Join(os.MkdirAll(dir+"/n/m", 0o755), os.WriteFile(dir+"/n/m/f", []byte("x"), 0o600), os.WriteFile(dir+"/d.txt", nil, 0o600))
		}, []told{file("d.txt", ""), of(workspace.Directory, "n", ""), of(workspace.Directory, "n/m", ""), file("n/m/f", "x")}},
		{"deleted", func(dir string) error {
			return errors.Join(os.RemoveAll(dir+"/d"), os.Remove(dir+"/unused"), os.Remove(dir+"/old"))
		}, []told{of(workspace.Deleted, "d", ""), of(workspace.Deleted, "old", ""), of(workspace.Deleted, "unused", "")}},
		{"directory becomes a file", func(dir string) error {
			return errors.Join(os.RemoveAll(dir+"/d"), os.WriteFile(dir+"/d", []byte("now"), 0o644))
		}, []told{file("d", "now")}},
		{"file becomes a directory", func(dir string) error {
			return errors.Join(os.Remove(dir+"/old"), os.Mkdir(dir+"/old", 0o755), os.WriteFile(dir+"/old/x", nil, 0o644))
		}, []told{of(workspace.Directory, "old", ""), file("old/x", "")}},
		{"link elsewhere", func(dir string) error {
			return errors.Join(os.Remove(dir+"/link"), os.Symlink("/etc/passwd", dir+"/link"), os.Symlink("d", dir+"/m"))
		}, []told{of(workspace.Symlink, "link", "/etc/passwd"), of(workspace.Symlink, "m", "d")}},
		{"not to be copied", func(dir string) error {
			return errors.Join(unix.Mkfifo(dir+"/pipe", 0o600), os.Remove(dir+"/empty"), unix.Mkfifo(dir+"/empty", 0o600))
		}, []told{of(workspace.Other, "empty", ""), of(workspace.Other, "pipe", "")}},
		{"setuid, and a hard link", func(dir string) error {
			return errors.Join(unix.Chmod(dir+"/empty", 0o4755), os.Link(dir+"/old", dir+"/hard"))
		}, []told{{workspace.Entry{Name: "empty", Kind: workspace.File, Executable: true}, ""}, file("hard", "from long ago"), file("old", "from long ago")}},
		{"names too long to be written down", func(dir string) error {
			at, err := os.OpenRoot(dir)
			for range 20 { // each is reached from the one above
				if err == nil {
					err = at.Mkdir(strings.Repeat("x", 250), 0o755)
				}
				if err == nil {
					at, err = at.OpenRoot(strings.Repeat("x", 250))
				}
			}
			return err
		}, func() (all []told) {
			name := strings.Repeat("x", 250)
			for range 16 {
				all = append(all, of(workspace.Directory, name, ""))
				name += "/" + strings.Repeat("x", 250)
			}
			return all
		}()},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, dir := open(t)
			if err := w.Fill(pack(t, sample()...)); err != nil {
				t.Fatal(err)
			}
			if err := c.change(dir); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, toldBy(t, w)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// What was not filled to its end has no notes, so nothing is ever told of it as deleted.
func TestFillBreaksOff(t *testing.T) {
	w, _ := open(t)
	archive := pack(t, sample()...).Bytes()
	if err := w.Fill(bytes.NewReader(archive[:len(archive)-2000])); err == nil {
		t.Fatal("half an archive is enough")
	}
	if err := w.Changes(io.Discard); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("changes of half a workspace: %v", err)
	}
}

// The host's archive is checked like any other, though the host is trusted.
func TestFillRefuses(t *testing.T) {
	for name, entries := range map[string][]told{
		"deleted":    {of(workspace.Deleted, "a", "")},
		"other":      {of(workspace.Other, "a", "")},
		"no parent":  {file("a/b", "")},
		"link first": {of(workspace.Symlink, "a", ".."), file("b", "")},
	} {
		w, dir := open(t)
		err := w.Fill(pack(t, entries...))
		if name == "link first" { // control: the link is made as it is, and nothing goes through it
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err == nil {
			t.Errorf("%s passes", name)
		}
		if left, _ := os.ReadDir(filepath.Dir(dir)); len(left) != 2 {
			t.Errorf("%s: beside the copy stand %v", name, left)
		}
	}
}

func FuzzNotes(f *testing.F) {
	f.Add("1 5 17 \"a/b\"\n2 0 0 \"c\"\n")
	f.Fuzz(func(t *testing.T, text string) {
		n, err := readNotes(strings.NewReader(text))
		last := ""
		for err == nil && n.next.name != "" {
			if workspace.CheckName(n.next.name) != nil || last != "" && workspace.Compare(last, n.next.name) >= 0 {
				t.Fatalf("%q after %q", n.next.name, last)
			}
			var line strings.Builder
			if err := writeNote(&line, n.next); err != nil {
				t.Fatal(err)
			}
			if again, err := parseNote(strings.TrimSuffix(line.String(), "\n")); err != nil || again != n.next {
				t.Fatalf("%+v is read as %+v, %v", n.next, again, err)
			}
			last = n.next.name
			err = n.advance()
		}
	})
}
