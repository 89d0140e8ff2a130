package deb

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

// packageOf returns a package with that control file and one file of content.
func packageOf(t testing.TB, control, content string) []byte {
	t.Helper()
	archive := func(name, text string) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(w, text)
		_ = w.Close()
		return b.Bytes()
	}
	b := []byte(magic)
	for _, m := range []struct {
		name string
		data []byte
	}{{"debian-binary", []byte("2.0\n")}, {"control.tar", archive("./control", control)}, {"data.tar", archive("./usr/x", content)}} {
		b = fmt.Appendf(b, "%-16s%-12d%-6d%-6d%-8d%-10d`\n%s", m.name, 0, 0, 0, 100644, len(m.data), m.data)
		if len(m.data)%2 == 1 {
			b = append(b, '\n')
		}
	}
	return b
}

func TestControl(t *testing.T) {
	const control = "Package: x\nVersion: 1"
	b := packageOf(t, control+"\n", "odd")
	if got, err := Control(bytes.NewReader(b)); got != control || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	var seen []string
	err := Files(bytes.NewReader(b), func(h *tar.Header, content io.Reader) error {
		text, err := io.ReadAll(content)
		seen = append(seen, h.Name+"="+string(text))
		return err
	})
	if err != nil || len(seen) != 1 || seen[0] != "./usr/x=odd" {
		t.Errorf("%q, %v", seen, err)
	}
	for name, bad := range map[string][]byte{
		"empty": nil, "other archive": []byte("!<arch>\nx"), "cut": b[:200], "no control": []byte(magic),
		"two paragraphs": packageOf(t, control+"\n\nPackage: y\n", ""),
	} {
		if got, err := Control(bytes.NewReader(bad)); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// No package makes two paragraphs of an index.
func FuzzControl(f *testing.F) {
	f.Add(packageOf(f, "Package: x\nVersion: 1\n", ""))
	f.Fuzz(func(t *testing.T, b []byte) {
		control, err := Control(bytes.NewReader(b))
		if err == nil && (control == "" || strings.Contains(control, "\n\n") || strings.HasSuffix(control, "\n")) {
			t.Errorf("%q", control)
		}
		_ = Files(bytes.NewReader(b), func(*tar.Header, io.Reader) error { return nil })
	})
}
