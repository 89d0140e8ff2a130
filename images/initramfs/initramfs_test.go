package initramfs

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// What cpio(1) unpacks is what was written.
func TestWriteForCpio(t *testing.T) {
	cpio, err := exec.LookPath("cpio")
	if err != nil {
		t.Skip("cpio is not there (apt-get install cpio)")
	}
	var b bytes.Buffer
	data := []byte(strings.Repeat("data ", 1001))
	files := []File{
		{"init", Regular | 0o755, data}, {"lib", Directory | 0o755, nil}, {"lib/a", Regular | 0o600, nil},
		{"lib/link", Symlink | 0o777, []byte("../init")},
	}
	if err := Write(&b, files); err != nil {
		t.Fatal(err)
	}
	if b.Len()%4 != 0 {
		t.Errorf("%d bytes, no multiple of four", b.Len())
	}
	dir := t.TempDir()
	cmd := exec.Command(cpio, "-idm", "--quiet")
	cmd.Dir, cmd.Stdin = dir, &b
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "init")); err != nil || !bytes.Equal(got, data) {
		t.Errorf("init: %d bytes, %v", len(got), err)
	}
	if to, err := os.Readlink(filepath.Join(dir, "lib/link")); err != nil || to != "../init" {
		t.Errorf("link to %q, %v", to, err)
	}
	for name, want := range map[string]os.FileMode{"init": 0o755, "lib": 0o755 | os.ModeDir, "lib/a": 0o600} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v; want %v", name, info, err, want)
		}
	}
}

func TestWriteRefuses(t *testing.T) {
	for name, files := range map[string][]File{
		"absolute":         {{"/init", Regular, nil}},
		"outside":          {{"../init", Regular, nil}},
		"not clean":        {{"a//b", Regular, nil}},
		"empty":            {{"", Regular, nil}},
		"NUL":              {{"a\x00", Regular, nil}},
		"twice":            {{"a", Regular, nil}, {"a", Regular, nil}},
		"without its home": {{"a/b", Regular, nil}},
	} {
		if err := Write(new(bytes.Buffer), files); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}
