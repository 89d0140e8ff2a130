package workspace

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"torno.internal/protocol/workspace"
)

// A desk is a directory of the host's whose copy is in a guest, played by the test.
type desk struct {
	t   testing.TB
	dir string
	w   *Workspace
}

// tempDir returns a new directory, in memory where there is such a place: taking back waits for the disk.
func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "torno-workspace")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// sit makes the files, by name and content; a name that ends in a slash is a directory, content that begins
// with -> a link. Then they go in.
func sit(t testing.TB, files map[string]string) *desk {
	t.Helper()
	d := &desk{t: t, dir: tempDir(t)}
	for name, content := range files {
		d.write(name, content)
	}
	d.in()
	return d
}

func (d *desk) write(name, content string) {
	d.t.Helper()
	path := filepath.Join(d.dir, name)
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if target, ok := strings.CutPrefix(content, "->"); err == nil && ok {
		err = os.Symlink(target, path)
	} else if err == nil && strings.HasSuffix(name, "/") {
		err = os.MkdirAll(path, 0o755)
	} else if err == nil {
		err = os.WriteFile(path, []byte(content), 0o644)
	}
	if err != nil {
		d.t.Fatal(err)
	}
}

// in sends the directory to nobody.
func (d *desk) in() {
	d.t.Helper()
	var err error
	if d.w, err = Open(d.dir); err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(d.w.Close)
	if err := d.w.Send(io.Discard); err != nil {
		d.t.Fatal(err)
	}
}

// A say is what the guest says of one name: content, -> a link, or one of the words below.
type say struct{ name, what string }

const (
	directory = "\x00directory"
	deleted   = "\x00deleted"
	other     = "\x00other"
	script    = "\x00script" // an executable file
)

func pack(t testing.TB, says ...say) []byte {
	t.Helper()
	var b bytes.Buffer
	w := workspace.NewWriter(&b)
	for _, s := range says {
		e := workspace.Entry{Name: s.name, Kind: workspace.File, Size: int64(len(s.what))}
		switch {
		case s.what == directory:
			e.Kind, e.Size = workspace.Directory, 0
		case s.what == deleted:
			e.Kind, e.Size = workspace.Deleted, 0
		case s.what == other:
			e.Kind, e.Size = workspace.Other, 0
		case s.what == script:
			e.Executable = true
		case strings.HasPrefix(s.what, "->"):
			e.Kind, e.Target, e.Size = workspace.Symlink, s.what[2:], 0
		}
		if err := w.Add(&e); err != nil {
			t.Fatal(err)
		}
		if e.Size > 0 {
			if _, err := io.WriteString(w, s.what); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// back has the guest say these things, and returns what came of it.
func (d *desk) back(code bool, says ...say) *Report {
	d.t.Helper()
	if err := d.w.Receive(bytes.NewReader(pack(d.t, says...))); err != nil {
		d.t.Fatal(err)
	}
	r, err := d.w.Apply(code)
	if err != nil {
		d.t.Fatal(err)
	}
	return r
}

// tree returns all files below the directory, as sit takes them.
func (d *desk) tree() map[string]string {
	d.t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(d.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(d.dir, path)
		switch e.Type() {
		case fs.ModeDir:
			if left, err := os.ReadDir(path); err == nil && len(left) == 0 && name != "." {
				files[name+"/"] = ""
			}
		case fs.ModeSymlink:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			files[name] = "->" + target
		case 0:
			if name == ReviewDir+"/.gitignore" {
				return nil
			}
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			files[name] = string(b)
		default:
			files[name] = fmt.Sprint(e.Type())
		}
		return nil
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return files
}

func names(notes []Note) []string {
	var all []string
	for _, n := range notes {
		all = append(all, n.Name)
	}
	return all
}
