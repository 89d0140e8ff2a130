package workspace

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"torno.internal/protocol/workspace"
)

// sent returns the names that Send writes.
func sent(t *testing.T, w *Workspace) []string {
	t.Helper()
	var b bytes.Buffer
	if err := w.Send(&b); err != nil {
		t.Fatal(err)
	}
	var all []string
	r := workspace.NewReader(&b, workspace.Limits{})
	for {
		e, err := r.Next()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, e.Name)
	}
}

// What goes in: files, directories, links that stay inside; nothing of ours, nothing else.
func TestSend(t *testing.T) {
	d := &desk{t: t, dir: tempDir(t)}
	for name, content := range map[string]string{
		"a": "1", "d/b": "2", "d/e/": "", "d/up": "->../a", "d-1": "", "odd\nname": "3", "\xff": "4", ".git/config": "x",
		"out": "->/etc/passwd", "climbs": "->../x", ".torno-review/.envrc": "evil", ".torno-incoming/0": "stale", "d/.torno-review": "not ours",
	} {
		d.write(name, content)
	}
	if err := unix.Mkfifo(filepath.Join(d.dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	w, err := Open(d.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	want := []string{".git", ".git/config", "a", "d", "d/.torno-review", "d/b", "d/e", "d/up", "d-1", "odd\nname", "\xff"}
	if diff := cmp.Diff(want, sent(t, w)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"climbs", "out", "pipe"}, names(w.Left())); diff != "" {
		t.Errorf("left out (-want +got):\n%s", diff)
	}
}

func TestBack(t *testing.T) {
	before := map[string]string{"a": "1", "d/b": "2", "d/e/c": "3", "link": "->a", "empty/": ""}
	for _, c := range []struct {
		name      string
		meanwhile func(d *desk)
		says      []say
		want      map[string]string // what differs from before; "" with a name of before: gone
		conflicts []string
		left      []string
	}{
		{name: "nothing"},
		{name: "the same again", says: []say{{"a", "1"}, {"link", "->a"}}},
		{name: "changed, new and deleted", says: []say{{"a", "one"}, {"d/b", deleted}, {"d/n", directory}, {"d/n/x", "new"}, {"link", "->d/b"}},
			want: map[string]string{"a": "one", "d/b": "", "d/n/x": "new", "link": "->d/b"}},
		{name: "a directory with all in it", says: []say{{"d", deleted}, {"empty", deleted}}, want: map[string]string{"d/b": "", "d/e/c": "", "empty/": ""}},
		{name: "a directory becomes a file", says: []say{{"d", "file"}}, want: map[string]string{"d/b": "", "d/e/c": "", "d": "file"}},
		{name: "a file becomes a directory", says: []say{{"a", directory}, {"a/x", "x"}}, want: map[string]string{"a": "", "a/x": "x"}},
		{name: "a file becomes a link", says: []say{{"a", "->d"}}, want: map[string]string{"a": "->d"}},
		{name: "an empty file", says: []say{{"z", ""}}, want: map[string]string{"z": ""}},
		{name: "a directory of which something stayed here", meanwhile: func(d *desk) { d.write("d/mine", "m") }, says: []say{{"d", deleted}},
			want: map[string]string{"d/b": "", "d/e/c": "", "d/mine": "m"}},
		{name: "both changed", meanwhile: func(d *desk) { d.write("a", "mine") }, says: []say{{"a", "yours"}},
			want: map[string]string{"a": "mine", "a.torno-conflict": "yours"}, conflicts: []string{"a"}},
		{name: "both changed alike", meanwhile: func(d *desk) { d.write("a", "same") }, says: []say{{"a", "same"}}, want: map[string]string{"a": "same"}},
		{name: "changed here, unsaid there", meanwhile: func(d *desk) { d.write("a", "mine") }, want: map[string]string{"a": "mine"}},
		{name: "touched here alone", meanwhile: func(d *desk) { d.write("a", "1") }, says: []say{{"a", "yours"}}, want: map[string]string{"a": "yours"}},
		{name: "both new", meanwhile: func(d *desk) { d.write("n", "mine") }, says: []say{{"n", "yours"}},
			want: map[string]string{"n": "mine", "n.torno-conflict": "yours"}, conflicts: []string{"n"}},
		{name: "a second conflict", meanwhile: func(d *desk) { d.write("n", "mine"); d.write("n.torno-conflict", "old") }, says: []say{{"n", "yours"}},
			want: map[string]string{"n": "mine", "n.torno-conflict": "old", "n.torno-conflict-2": "yours"}, conflicts: []string{"n"}},
		{name: "deleted there, changed here", meanwhile: func(d *desk) { d.write("a", "mine") }, says: []say{{"a", deleted}},
			want: map[string]string{"a": "mine"}, conflicts: []string{"a"}},
		{name: "changed there, deleted here", meanwhile: func(d *desk) { os.Remove(d.dir + "/a") }, says: []say{{"a", "yours"}},
			want: map[string]string{"a": "", "a.torno-conflict": "yours"}, conflicts: []string{"a"}},
		{name: "its directory deleted here", meanwhile: func(d *desk) { os.RemoveAll(d.dir + "/d") }, says: []say{{"d/new", "n"}},
			want: map[string]string{"d/b": "", "d/e/c": "", "d/new": "n"}},
		{name: "its directory became a file here", meanwhile: func(d *desk) { os.RemoveAll(d.dir + "/d"); d.write("d", "f") }, says: []say{{"d/b", "new"}},
			want: map[string]string{"d/b": "", "d/e/c": "", "d": "f", ".torno-review/d/b": "new"}, conflicts: []string{"d/b"}},
		{name: "link, changed here", meanwhile: func(d *desk) { os.Remove(d.dir + "/link"); d.write("link", "->d") }, says: []say{{"link", "->d/b"}},
			want: map[string]string{"link": "->d", "link.torno-conflict": "->d/b"}, conflicts: []string{"link"}},
		{name: "no file", says: []say{{"a", other}, {"pipe", other}}, left: []string{"a", "pipe"}},
		{name: "what never went in is deleted", meanwhile: func(d *desk) { d.write("mine", "m") }, says: []say{{"mine", deleted}}, want: map[string]string{"mine": "m"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := sit(t, before)
			if c.meanwhile != nil {
				c.meanwhile(d)
			}
			r := d.back(false, c.says...)
			want := map[string]string{}
			for name, content := range before {
				want[name] = content
			}
			for name, content := range c.want {
				if _, was := before[name]; was && content == "" {
					delete(want, name)
				} else {
					want[name] = content
				}
			}
			if diff := cmp.Diff(want, d.tree()); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(c.conflicts, names(r.Conflicts)); diff != "" {
				t.Errorf("conflicts (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(c.left, names(r.Left)); diff != "" || len(r.Held) > 0 {
				t.Errorf("left out (-want +got):\n%s\nheld %v", diff, r.Held)
			}
		})
	}
}

// A file's mode stays its own, but for whether it can be executed.
func TestModes(t *testing.T) {
	d := sit(t, map[string]string{"private": "p", "tool": "t", "plain": "x"})
	for name, mode := range map[string]os.FileMode{"private": 0o600, "tool": 0o750} {
		if err := os.Chmod(filepath.Join(d.dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	d.in()
	d.back(false, say{"new", script}, say{"plain", script}, say{"private", "q"}, say{"tool", "no tool any more"})
	for name, want := range map[string]os.FileMode{"private": 0o600, "tool": 0o640, "plain": 0o755, "new": 0o755} {
		info, err := os.Stat(filepath.Join(d.dir, name))
		if err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v; want %v", name, info.Mode(), err, want)
		}
	}
}

// An archive that breaks off, or a rule, changes nothing; the next one is taken.
func TestReceiveIsAllOrNothing(t *testing.T) {
	d := sit(t, map[string]string{"a": "1"})
	good := pack(t, say{"a", "2"}, say{"b", strings.Repeat("b", 5000)})
	for _, bad := range [][]byte{nil, good[:100], good[:1600], good[:len(good)-1], append(bytes.Clone(good), 0)} {
		if err := d.w.Receive(bytes.NewReader(bad)); err == nil || d.w.Received() {
			t.Errorf("%d bytes are taken", len(bad))
		}
		if _, err := d.w.Apply(false); err == nil {
			t.Error("nothing is applied")
		}
		if diff := cmp.Diff(map[string]string{"a": "1"}, d.tree()); diff != "" {
			t.Fatalf("%d bytes (-want +got):\n%s", len(bad), diff)
		}
	}
	if err := d.w.Receive(bytes.NewReader(good)); err != nil || !d.w.Received() {
		t.Fatal(err)
	}
	if _, err := d.w.Apply(false); err != nil || d.tree()["a"] != "2" || len(d.tree()) != 2 {
		t.Errorf("%v, %v", err, d.tree())
	}
}

// Two runs do not put their changes into one directory at the same time.
func TestLock(t *testing.T) {
	d := sit(t, map[string]string{"a": "1"})
	other, err := Open(d.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := d.w.Receive(bytes.NewReader(pack(t, say{"a", "2"}))); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(d.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Errorf("the lock is free: %v", err)
	}
	if _, err := d.w.Apply(false); err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		t.Errorf("the lock is not free: %v", err)
	}
}

func TestTooLarge(t *testing.T) {
	dir := tempDir(t)
	f, err := os.Create(filepath.Join(dir, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size, want := range map[int64]error{1 << 20: nil, 17 << 30: ErrTooLarge} {
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		w, err := Open(dir)
		if !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Errorf("%d bytes: %v", size, err)
		}
		if err == nil {
			w.Close()
		}
	}
}

// What went in is known to the next process, too.
func TestSaveAndLoad(t *testing.T) {
	d := sit(t, map[string]string{"a": "1", "b": "2", "\xff": "3", "l": "->a"})
	var b bytes.Buffer
	if err := d.w.Save(&b); err != nil {
		t.Fatal(err)
	}
	d.w.Close()
	saved := b.Bytes()
	var err error
	if d.w, err = Load(bytes.NewReader(saved)); err != nil {
		t.Fatal(err)
	}
	defer d.w.Close()
	d.write("b", "mine")
	r := d.back(false, say{"a", "one"}, say{"b", "two"}, say{"\xff", deleted})
	want := map[string]string{"a": "one", "b": "mine", "b.torno-conflict": "two", "l": "->a"}
	if diff := cmp.Diff(want, d.tree()); diff != "" || len(r.Conflicts) != 1 {
		t.Errorf("%v (-want +got):\n%s", r, diff)
	}
	if _, err := Load(bytes.NewReader(saved[:len(saved)-3])); err == nil {
		t.Error("half of it is enough")
	}
}
