package workspace

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"torno.internal/protocol"
)

var sample = []Entry{
	{Name: "a", Kind: File, Size: 5, Modified: time.Unix(1_700_000_000, 0)},
	{Name: "b", Kind: Directory},
	{Name: "b/a\nline", Kind: File, Size: 5, Executable: true},
	{Name: "b/" + strings.Repeat("long", 60), Kind: Symlink, Target: "../a"},
	{Name: "b.txt", Kind: Deleted},
	{Name: "c", Kind: Deleted},
	{Name: "pipe", Kind: Other},
	{Name: "ä/\xff", Kind: File, Size: 5},
}

// pack writes entries, each file with as many of the letters "hello" as it has bytes.
func pack(entries []Entry) ([]byte, error) {
	var b bytes.Buffer
	w := NewWriter(&b)
	for i := range entries {
		if err := w.Add(&entries[i]); err != nil {
			return nil, err
		}
		if _, err := w.Write(bytes.Repeat([]byte("hello"), 1+int(entries[i].Size)/5)[:entries[i].Size]); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return b.Bytes(), err
}

func unpack(b []byte, limits Limits) (entries []Entry, content string, err error) {
	r := NewReader(bytes.NewReader(b), limits)
	for {
		e, err := r.Next()
		if err == io.EOF {
			return entries, content, nil
		}
		if err != nil {
			return entries, content, err
		}
		entries = append(entries, *e)
		text, err := io.ReadAll(r)
		if err != nil {
			return entries, content, err
		}
		content += string(text)
	}
}

func TestRoundTrip(t *testing.T) {
	b, err := pack(sample)
	if err != nil {
		t.Fatal(err)
	}
	got, content, err := unpack(b, Limits{})
	if diff := cmp.Diff(sample, got); err != nil || diff != "" || content != "hellohellohello" {
		t.Errorf("%v, content %q (-want +got):\n%s", err, content, diff)
	}
	again, err := pack(got)
	if err != nil || !bytes.Equal(b, again) {
		t.Errorf("what was read is written in other words: %v", err)
	}
}

func TestCompare(t *testing.T) {
	ordered := []string{"a", "a/\x01", "a/b", "a/b/c", "a/b-", "a\x01", "a-", "a-/b", "a.", "b"}
	for i, a := range ordered {
		for j, b := range ordered {
			if got := Compare(a, b); (got < 0) != (i < j) || (got == 0) != (i == j) {
				t.Errorf("Compare(%q, %q) = %d", a, b, got)
			}
		}
	}
}

func TestInside(t *testing.T) {
	for _, c := range []struct {
		name, target string
		want         bool
	}{
		{"l", "a", true}, {"l", "./a/", true}, {"d/l", "../a", true}, {"d/e/l", "../../a/b", true}, {"d/l", "..", true}, {"l", ".", true},
		{"l", "..", false}, {"l", "../a", false}, {"d/l", "../../a", false}, {"l", "/etc/passwd", false}, {"l", "", false}, {"l", "//x", false},
		{"d/l", "a/../b", false}, // a may be a link to ., whose .. is outside
		{"d/e/l", "../s/../x", false}, {"d/l", "x/..", false},
	} {
		if got := (&Entry{Name: c.name, Kind: Symlink, Target: c.target}).Inside(); got != c.want {
			t.Errorf("%q -> %q is inside: %v, want %v", c.name, c.target, got, c.want)
		}
	}
}

// What a Writer refuses, a Reader never has to.
func TestWriterRefuses(t *testing.T) {
	for name, entries := range map[string][]Entry{
		"no name":           {{Kind: File}},
		"absolute":          {{Name: "/a", Kind: File}},
		"climbs":            {{Name: "a/../../b", Kind: File}},
		"dot":               {{Name: ".", Kind: Directory}},
		"slash at the end":  {{Name: "a/", Kind: Directory}},
		"zero byte":         {{Name: "a\x00b", Kind: File}},
		"long element":      {{Name: strings.Repeat("x", 256), Kind: File}},
		"long name":         {{Name: strings.Repeat("x/", 2048) + "x", Kind: File}},
		"no kind":           {{Name: "a"}},
		"sized directory":   {{Name: "a", Kind: Directory, Size: 1}},
		"negative":          {{Name: "a", Kind: File, Size: -1}},
		"file with target":  {{Name: "a", Kind: File, Target: "b"}},
		"link to nothing":   {{Name: "a", Kind: Symlink}},
		"twice":             {{Name: "a", Kind: Deleted}, {Name: "a", Kind: File}},
		"out of order":      {{Name: "b", Kind: File}, {Name: "a", Kind: File}},
		"below a file":      {{Name: "a", Kind: File}, {Name: "a/b", Kind: File}},
		"below a link":      {{Name: "a", Kind: Symlink, Target: "b"}, {Name: "a/b", Kind: File}},
		"below the deleted": {{Name: "a", Kind: Deleted}, {Name: "a/b", Kind: Deleted}},
	} {
		if _, err := pack(entries); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Attack 43: what tar(5) can say and a workspace must not, one header at a time; the first is the control.
func TestAttack43Headers(t *testing.T) {
	good := tar.Header{Name: "a", Typeflag: tar.TypeReg, Mode: 0o644, ModTime: time.Unix(1, 0), Format: tar.FormatPAX}
	for _, c := range []struct {
		name   string
		change func(*tar.Header)
		ok     bool
	}{
		{"control", func(*tar.Header) {}, true},
		{"executable", func(h *tar.Header) { h.Mode = 0o755 }, true},
		{"newline and escape in the name", func(h *tar.Header) { h.Name = "a\n\x1b[2Jb" }, true}, // printing is where they are escaped
		{"setuid", func(h *tar.Header) { h.Mode = 0o4755 }, false},
		{"setgid", func(h *tar.Header) { h.Mode = 0o2755 }, false},
		{"sticky", func(h *tar.Header) { h.Mode = 0o1644 }, false},
		{"writable by all", func(h *tar.Header) { h.Mode = 0o666 }, false},
		{"absolute", func(h *tar.Header) { h.Name = "/etc/passwd" }, false},
		{"climbs", func(h *tar.Header) { h.Name = "../x" }, false},
		{"climbs inside", func(h *tar.Header) { h.Name = "a/../../x" }, false},
		{"the workspace itself", func(h *tar.Header) { h.Name = "." }, false},
		{"hard link", func(h *tar.Header) { h.Typeflag, h.Linkname = tar.TypeLink, "b" }, false},
		{"hard link outside", func(h *tar.Header) { h.Typeflag, h.Linkname = tar.TypeLink, "/etc/shadow" }, false},
		{"character device", func(h *tar.Header) { h.Typeflag, h.Devmajor, h.Devminor = tar.TypeChar, 1, 3 }, false},
		{"block device", func(h *tar.Header) { h.Typeflag, h.Devmajor = tar.TypeBlock, 8 }, false},
		{"fifo", func(h *tar.Header) { h.Typeflag = tar.TypeFifo }, false},
		{"contiguous file", func(h *tar.Header) { h.Typeflag = tar.TypeCont }, false},
		{"global header", func(h *tar.Header) {
			*h = tar.Header{Typeflag: tar.TypeXGlobalHeader, Name: "g", PAXRecords: map[string]string{"path": "../x"}}
		}, false},
		{"extended attribute", func(h *tar.Header) { h.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": "x"} }, false},
		{"time in a record", func(h *tar.Header) { h.ModTime = time.Unix(1, 5) }, false},
		{"GNU", func(h *tar.Header) { h.Format, h.Name = tar.FormatGNU, strings.Repeat("x/", 100)+"x" }, false},
		{"deleted and executable", func(h *tar.Header) { h.PAXRecords, h.Mode = map[string]string{recordDeleted: "1"}, 0o755 }, false},
		{"deleted directory", func(h *tar.Header) {
			h.PAXRecords, h.Mode, h.Name, h.Typeflag = map[string]string{recordDeleted: "1"}, 0o755, "a/", tar.TypeDir
		}, false},
		{"deleted by another word", func(h *tar.Header) { h.PAXRecords = map[string]string{recordDeleted: "0"} }, false},
	} {
		h := good
		c.change(&h)
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		if err := errors.Join(w.WriteHeader(&h), w.Close()); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if _, _, err := unpack(b.Bytes(), Limits{}); (err == nil) != c.ok || err != nil && !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// A header of 512 bytes that stands for more zeros than any disk holds, in both of GNU's ways.
func TestAttack43SparseBombs(t *testing.T) {
	gnu := func() []byte { // old format: type S, a map in the header
		var block [512]byte
		copy(block[:], "bomb")
		copy(block[100:], "0000644\x00")
		copy(block[108:], "0000000\x000000000\x00")
		copy(block[124:], "00000000000\x0000000000000\x00")
		block[156] = 'S'
		copy(block[257:], "ustar  \x00")
		copy(block[386:], "77777777777\x0000000000000\x00") // one hole of 8 GiB
		copy(block[483:], "77777777777\x00")
		sum := 8 * int(' ')
		for i, c := range block {
			if i < 148 || i >= 156 {
				sum += int(c)
			}
		}
		copy(block[148:], fmt.Sprintf("%06o\x00 ", sum))
		return append(block[:], make([]byte, 1024)...)
	}
	pax := func() []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		// The writer refuses these records, so they take the place of others of the same length.
		h := &tar.Header{Name: "bomb", Typeflag: tar.TypeReg, Mode: 0o644, Format: tar.FormatPAX, ModTime: time.Unix(1, 0), PAXRecords: map[string]string{
			"XXX.sparse.major": "0", "XXX.sparse.minor": "1", "XXX.sparse.numblocks": "1", "XXX.sparse.map": "0,0", "XXX.sparse.size": "9000000000000000000",
		}}
		if err := errors.Join(w.WriteHeader(h), w.Close()); err != nil {
			t.Fatal(err)
		}
		return bytes.ReplaceAll(b.Bytes(), []byte("XXX.sparse"), []byte("GNU.sparse"))
	}
	for name, bomb := range map[string][]byte{"GNU": gnu(), "pax": pax()} {
		h, err := tar.NewReader(bytes.NewReader(bomb)).Next()
		if err != nil || h.Size < 1<<32 {
			t.Errorf("%s is no bomb for tar itself: %+v, %v", name, h, err)
		}
		if _, _, err := unpack(bomb, Limits{}); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLimits(t *testing.T) {
	entries := []Entry{{Name: "aaaa", Kind: File, Size: 10}, {Name: "bbbb", Kind: Symlink, Target: "cccc"}, {Name: "cccc", Kind: Directory}}
	b, err := pack(entries)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		limits Limits
		ok     bool
	}{
		{Limits{3, 10, 16}, true}, {Limits{2, 10, 16}, false}, {Limits{3, 9, 16}, false}, {Limits{3, 10, 15}, false},
	} {
		if _, _, err := unpack(b, c.limits); (err == nil) != c.ok || err != nil && !errors.Is(err, ErrTooLarge) {
			t.Errorf("%+v: %v", c.limits, err)
		}
	}
}

// Attack 43: one entry more than MaxWorkspaceEntries, none of which is kept; and a file that says it has
// more than MaxWorkspaceBytes, of which none is sent.
func TestAttack43HugeCounts(t *testing.T) {
	pr, pw := io.Pipe()
	go func() {
		w := tar.NewWriter(pw)
		for i := range protocol.MaxWorkspaceEntries + 2 {
			h := &tar.Header{Name: fmt.Sprintf("%07d", i), Typeflag: tar.TypeReg, Mode: 0o644, ModTime: time.Unix(1, 0), Format: tar.FormatPAX}
			if w.WriteHeader(h) != nil {
				return
			}
		}
		pw.Close()
	}()
	r := NewReader(pr, Limits{})
	n := 0
	for {
		if _, err := r.Next(); err != nil {
			if !errors.Is(err, ErrTooLarge) || n != protocol.MaxWorkspaceEntries {
				t.Errorf("%v after %d entries", err, n)
			}
			break
		}
		n++
	}
	pr.Close()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "a", Typeflag: tar.TypeReg, Mode: 0o644, Size: protocol.MaxWorkspaceBytes + 1, ModTime: time.Unix(1, 0), Format: tar.FormatPAX}); err != nil {
		t.Fatal(err)
	}
	if _, err := NewReader(&b, Limits{}).Next(); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a file of too many bytes: %v", err)
	}
}

func TestEnd(t *testing.T) {
	b, err := pack(sample)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := unpack(append(slices.Clone(b), 0), Limits{}); !errors.Is(err, ErrMalformed) {
		t.Errorf("a byte after the end: %v", err)
	}
	if _, _, err := unpack(b[:700], Limits{}); err == nil {
		t.Error("half a file passes")
	}
}

func FuzzReader(f *testing.F) {
	b, err := pack(sample)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:512])
	f.Fuzz(func(t *testing.T, b []byte) {
		limits := Limits{Entries: 100, Bytes: 1 << 16, Names: 1 << 16}
		entries, content, err := unpack(b, limits)
		if err != nil {
			return
		}
		var out bytes.Buffer
		w := NewWriter(&out)
		for i := range entries {
			if err := w.Add(&entries[i]); err != nil {
				t.Fatalf("what passed is refused: %v", err)
			}
			if _, err := w.Write([]byte(content[:entries[i].Size])); err != nil {
				t.Fatal(err)
			}
			content = content[entries[i].Size:]
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		again, _, err := unpack(out.Bytes(), limits)
		if diff := cmp.Diff(entries, again); err != nil || diff != "" {
			t.Errorf("%v (-first +again):\n%s", err, diff)
		}
	})
}

// FuzzHeader tries headers whose checksums are right.
func FuzzHeader(f *testing.F) {
	f.Add("a/b", "../c", byte('0'), int64(0o644), int64(3), "TORNO.deleted", "1")
	f.Add("a/", "", byte('5'), int64(0o755), int64(0), "path", "x")
	f.Add("l", "/etc", byte('2'), int64(0o777), int64(0), "", "")
	f.Fuzz(func(t *testing.T, name, link string, kind byte, mode, size int64, key, value string) {
		h := &tar.Header{Name: name, Linkname: link, Typeflag: kind, Mode: mode, Size: size, ModTime: time.Unix(1, 0)}
		if key != "" {
			h.PAXRecords = map[string]string{key: value}
		}
		var b bytes.Buffer
		if tar.NewWriter(&b).WriteHeader(h) != nil {
			return
		}
		e, err := NewReader(&b, Limits{}).Next()
		if err == io.EOF {
			return
		}
		if (e == nil) == (err == nil) {
			t.Fatalf("%+v and %v", e, err)
		}
		if err == nil {
			if err := e.check(); err != nil || mode&^0o777 != 0 || !strings.ContainsRune("052", rune(kind)) && kind != 0 {
				t.Errorf("type %q, mode %#o, %+v: %v", kind, mode, e, err)
			}
		}
	})
}
