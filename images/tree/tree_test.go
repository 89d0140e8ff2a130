package tree

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// archive writes entries, each "TYPE NAME [CONTENT or TARGET]", as one layer.
func archive(t testing.TB, lines ...string) Layer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, line := range lines {
		kind, rest, _ := strings.Cut(line, " ")
		name, value, _ := strings.Cut(rest, " ")
		h := &tar.Header{Name: name, Mode: 0o644, Typeflag: tar.TypeReg}
		switch kind {
		case "dir":
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
		case "link":
			h.Typeflag, h.Linkname = tar.TypeLink, value
		case "symlink":
			h.Typeflag, h.Linkname = tar.TypeSymlink, value
		case "fifo":
			h.Typeflag = tar.TypeFifo
		default:
			h.Size = int64(len(value))
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			_, _ = io.WriteString(w, value)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return bytesLayer(b.Bytes())
}

func bytesLayer(b []byte) Layer {
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }
}

// listing returns what an archive holds, in the form that archive takes it, sorted.
func listing(t testing.TB, r io.Reader) []string {
	t.Helper()
	var lines []string
	for in := tar.NewReader(r); ; {
		h, err := in.Next()
		if err == io.EOF {
			slices.Sort(lines)
			return lines
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		kind := map[byte]string{tar.TypeReg: "file", tar.TypeDir: "dir", tar.TypeLink: "link", tar.TypeSymlink: "symlink", tar.TypeFifo: "fifo"}[h.Typeflag]
		line := kind + " " + strings.TrimSuffix(h.Name, "/")
		if v := h.Linkname + string(content); v != "" {
			line += " " + v
		}
		if line != "dir ." {
			lines = append(lines, line)
		}
	}
}

func merged(t *testing.T, layers ...Layer) []string {
	t.Helper()
	tree, err := Merge(layers...)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := tree.WriteTar(&b); err != nil {
		t.Fatal(err)
	}
	return listing(t, &b)
}

func TestMerge(t *testing.T) {
	for _, c := range []struct {
		name   string
		layers [][]string
		want   []string
	}{
		{"one layer", [][]string{{"dir etc/", "file etc/a 1", "symlink b etc/a"}}, []string{"dir etc", "file etc/a 1", "symlink b etc/a"}},
		{"parents that are not there", [][]string{{"file a/b/c 1"}}, []string{"dir a", "dir a/b", "file a/b/c 1"}},
		{"names as tools write them", [][]string{{"dir ./", "file ./a 1", "file /b 2", "file c//./d 3"}}, []string{"dir c", "file a 1", "file b 2", "file c/d 3"}},
		{"later wins", [][]string{{"file a 1", "file a 2"}, {"file a 3"}}, []string{"file a 3"}},
		{"whiteout", [][]string{{"file a 1", "file b 1"}, {"file .wh.a"}}, []string{"file b 1"}},
		{"whiteout of a directory", [][]string{{"file d/a 1", "file d/e/b 1"}, {"file .wh.d"}}, nil},
		{"whiteout of nothing", [][]string{{"file a 1"}, {"file .wh.b"}}, []string{"file a 1"}},
		{"whiteout in its own layer", [][]string{{"file a 1"}, {"file a 2", "file .wh.a"}}, []string{"file a 2"}},
		{"whiteout first, then the new", [][]string{{"file d/a 1"}, {"file .wh.d", "file d/b 2"}}, []string{"dir d", "file d/b 2"}},
		{"the new, then its whiteout", [][]string{{"file d/a 1"}, {"file d/b 2", "file .wh.d"}}, []string{"dir d", "file d/b 2"}},
		{"whiteout, and back", [][]string{{"file a 1"}, {"file .wh.a"}, {"file a 3"}}, []string{"file a 3"}},
		{"opaque", [][]string{{"file d/a 1", "file d/e/b 1"}, {"dir d/", "file d/c 2", "file d/.wh..wh..opq"}}, []string{"dir d", "file d/c 2"}},
		{"opaque first", [][]string{{"file d/a 1"}, {"file d/.wh..wh..opq", "file d/c 2"}}, []string{"dir d", "file d/c 2"}},
		{"opaque is one layer's", [][]string{{"file d/a 1"}, {"file d/.wh..wh..opq"}, {"file d/b 3"}}, []string{"dir d", "file d/b 3"}},
		{"AUFS's own", [][]string{{"file a 1"}, {"file .wh..wh.plnk", "dir .wh..wh.orph/", "file .wh..wh.orph/x 1"}}, []string{"file a 1"}},
		{"directory stays a directory", [][]string{{"file d/a 1"}, {"dir d/"}}, []string{"dir d", "file d/a 1"}},
		{"file over directory", [][]string{{"file d/a 1"}, {"file d 2"}}, []string{"file d 2"}},
		{"directory over file", [][]string{{"file d 1"}, {"file .wh.d", "dir d/", "file d/a 2"}}, []string{"dir d", "file d/a 2"}},
		{"hard link", [][]string{{"file a 1", "link b a"}}, []string{"file a 1", "link b a"}},
		{"hard link whose first name goes", [][]string{{"file a 1", "link b a"}, {"file .wh.a"}}, []string{"file b 1"}},
		{"hard link whose first name is replaced", [][]string{{"file a 1", "link b a"}, {"file a 2"}}, []string{"file a 2", "file b 1"}},
		{"hard link into a lower layer", [][]string{{"file a 1"}, {"link b a", "file .wh.a"}}, []string{"file b 1"}},
		{"hard link to a symbolic one", [][]string{{"symlink a x", "link b a"}}, []string{"symlink a x", "link b a"}},
		{"through a link", [][]string{{"dir usr/bin/", "symlink bin usr/bin"}, {"file bin/sh 2"}}, []string{"dir usr", "dir usr/bin", "file usr/bin/sh 2", "symlink bin usr/bin"}},
		{"through an absolute link", [][]string{{"dir run/", "symlink var/run /run"}, {"file var/run/x 2"}}, []string{"dir run", "dir var", "file run/x 2", "symlink var/run /run"}},
		{"through a link that leads upwards", [][]string{{"symlink a ../../../etc"}, {"file a/x 2"}}, []string{"dir etc", "file etc/x 2", "symlink a ../../../etc"}},
		{"whiteout through a link", [][]string{{"file usr/bin/sh 1", "symlink bin usr/bin"}, {"file bin/.wh.sh"}}, []string{"dir usr", "dir usr/bin", "symlink bin usr/bin"}},
		{"link is replaced, not followed, at the end", [][]string{{"file x 1", "symlink a x"}, {"file a 2"}}, []string{"file a 2", "file x 1"}},
		{"pipe", [][]string{{"fifo p"}}, []string{"fifo p"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var layers []Layer
			for _, l := range c.layers {
				layers = append(layers, archive(t, l...))
			}
			slices.Sort(c.want)
			if diff := cmp.Diff(c.want, merged(t, layers...)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestMergeRefuses(t *testing.T) {
	deep := strings.Repeat("d/", maxDepth+1) + "x"
	for _, c := range []struct {
		name  string
		lines []string
		want  error
	}{
		{"upwards", []string{"file ../x 1"}, ErrName},
		{"upwards inside", []string{"file a/../../x 1"}, ErrName},
		{"long name", []string{"file " + strings.Repeat("n", maxName+1) + " 1"}, ErrName},
		{"long path", []string{"file " + strings.Repeat(strings.Repeat("n", 200)+"/", 30) + "x 1"}, ErrName},
		{"deep", []string{"file " + deep + " 1"}, ErrTooLarge},
		{"root is a file", []string{"file . 1"}, ErrFormat},
		{"whiteout of a directory's self", []string{"file .wh.. 1"}, ErrName},
		{"whiteout of a directory's parent", []string{"file .wh... 1"}, ErrName},
		{"whiteout without a name", []string{"file .wh. 1"}, ErrName},
		{"whiteout as a directory", []string{"file .wh.d/x 1"}, ErrName},
		{"whiteout as a directory, by a link", []string{"symlink a .wh.d", "file a/x 1"}, ErrName},
		{"link to nothing", []string{"link a b"}, ErrFormat},
		{"link upwards", []string{"link a ../../etc/shadow"}, ErrName},
		{"link to a directory", []string{"dir d/", "link a d"}, ErrFormat},
		{"link loop", []string{"symlink a b", "symlink b a", "file a/x 1"}, ErrFormat},
		{"through a file", []string{"file a 1", "file a/b 1"}, ErrFormat},
		{"deep by links", []string{"symlink a " + strings.Repeat("d/", maxDepth) + "d", "file a/x 1"}, ErrTooLarge},
	} {
		if _, err := Merge(archive(t, c.lines...)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	cut := func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(strings.Repeat("x", 700))), nil }
	if _, err := Merge(cut); !errors.Is(err, ErrFormat) {
		t.Errorf("garbage: %v", err)
	}
}

// What a layer says of a file arrives, but for attributes that speak of another machine.
func TestMetadata(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{
		Name: "ping", Mode: 0o4755, Uid: 1 << 31, Gid: 7, Typeflag: tar.TypeReg, Format: tar.FormatPAX,
		PAXRecords: map[string]string{
			"SCHILY.xattr.security.capability": "cap", "SCHILY.xattr.user.x": "y",
			"SCHILY.xattr.trusted.overlay.redirect": "/etc", "SCHILY.xattr.security.selinux": "z",
		},
	}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	tree, err := Merge(bytesLayer(b.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := tree.WriteTar(&out); err != nil {
		t.Fatal(err)
	}
	r := tar.NewReader(&out)
	for h, err := r.Next(); ; h, err = r.Next() {
		if err != nil {
			t.Fatal(err)
		}
		if h.Name != "ping" {
			continue
		}
		got := []any{h.Mode, h.Uid, h.Gid, h.PAXRecords["SCHILY.xattr.security.capability"], h.PAXRecords["SCHILY.xattr.user.x"]}
		if diff := cmp.Diff([]any{int64(0o4755), 1 << 31, 7, "cap", "y"}, got); diff != "" || len(h.PAXRecords) > 3 { // and mtime or owner
			t.Errorf("(-want +got):\n%s%v", diff, h.PAXRecords)
		}
		return
	}
}

// A layer that is another one when it is read again is not taken for the first.
func TestChangedMeanwhile(t *testing.T) {
	first, second := archive(t, "file a 1"), archive(t, "file a 12")
	n := 0
	layer := func() (io.ReadCloser, error) {
		if n++; n == 1 {
			return first()
		}
		return second()
	}
	tree, err := Merge(layer)
	if err != nil {
		t.Fatal(err)
	}
	if err := tree.WriteTar(io.Discard); !errors.Is(err, ErrChanged) {
		t.Errorf("%v, want %v", err, ErrChanged)
	}
}

// Whatever the layers are, what comes out holds clean names alone, none twice and none before its directory, and
// merges to itself.
func FuzzMerge(f *testing.F) {
	f.Add("file a 1\nlink b a\nsymlink c a", "file .wh.a\nfile c/x 2\ndir d/\nfile d/.wh..wh..opq")
	f.Add("symlink a b\nsymlink b ..", "file a/b/c 1\nfile ../x 1")
	f.Fuzz(func(t *testing.T, lower, upper string) {
		var layers []Layer
		for _, text := range []string{lower, upper} {
			var b bytes.Buffer
			w := tar.NewWriter(&b)
			for i, line := range strings.Split(text, "\n") {
				kind, rest, _ := strings.Cut(line, " ")
				name, value, _ := strings.Cut(rest, " ")
				types := map[string]byte{"dir": tar.TypeDir, "link": tar.TypeLink, "symlink": tar.TypeSymlink, "fifo": tar.TypeFifo, "file": tar.TypeReg}
				h := &tar.Header{Name: name, Linkname: value, Typeflag: types[kind], Mode: int64(i)}
				if w.WriteHeader(h) != nil {
					return
				}
			}
			_ = w.Close()
			layers = append(layers, bytesLayer(b.Bytes()))
		}
		tree, err := Merge(layers...)
		if err != nil {
			return
		}
		var out bytes.Buffer
		if err := tree.WriteTar(&out); err != nil {
			t.Fatal(err)
		}
		checkNames(t, out.Bytes())
		again, err := Merge(bytesLayer(out.Bytes()))
		if err != nil {
			t.Fatal(err)
		}
		var twice bytes.Buffer
		if err := again.WriteTar(&twice); err != nil || !bytes.Equal(twice.Bytes(), out.Bytes()) {
			t.Errorf("not the same again (%v):\n%q\n%q", err, listing(t, &out), listing(t, &twice))
		}
	})
}

func checkNames(t *testing.T, b []byte) {
	t.Helper()
	seen := map[string]bool{".": true}
	for r := tar.NewReader(bytes.NewReader(b)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(h.Name, "/")
		dir := "."
		if i := strings.LastIndexByte(name, '/'); i >= 0 {
			dir = name[:i]
		}
		if parts, err := split(name); err != nil || name != "." && (strings.Join(parts, "/") != name || seen[name]) || !seen[dir] {
			t.Fatalf("%q: %v", name, err)
		}
		if strings.HasPrefix(name[strings.LastIndexByte(name, '/')+1:], whiteout) {
			t.Fatalf("%q is left", name)
		}
		seen[name] = true
	}
}
