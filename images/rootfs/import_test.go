package rootfs

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// archive writes entries, whose content is in Uname.
func archive(t *testing.T, headers ...*tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		content := h.Uname
		h.Uname, h.Size = "", 0
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(content))
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			_, _ = io.WriteString(w, content)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func rootTar(t *testing.T) []byte {
	return archive(t,
		&tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755},
		&tar.Header{Name: "./etc/", Typeflag: tar.TypeDir, Mode: 0o755},
		&tar.Header{Name: "./etc/motd", Typeflag: tar.TypeReg, Mode: 0o640, Uid: 7, Gid: 8, Uname: "hello\n"},
		&tar.Header{Name: "./bin", Typeflag: tar.TypeSymlink, Linkname: "usr/bin"},
		&tar.Header{Name: "./usr/bin/su", Typeflag: tar.TypeReg, Mode: 0o4755, Uname: "x"},
		&tar.Header{Name: "./usr/bin/also", Typeflag: tar.TypeLink, Linkname: "./usr/bin/su"},
	)
}

func file(t *testing.T, name string, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// debugfs asks e2fsprogs, which did not write the file system, what is in it.
func debugfs(t *testing.T, image, command string) string {
	t.Helper()
	out, err := sbin("debugfs", "-R", command, image).Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func sbin(name string, args ...string) *exec.Cmd {
	if path, err := exec.LookPath(name); err == nil {
		name = path
	} else {
		name = "/usr/sbin/" + name
	}
	return exec.Command(name, args...)
}

func check(t *testing.T, i *Image) {
	t.Helper()
	out, _ := sbin("e2fsck", "-fn", i.Path()).CombinedOutput() // exits with 4 for the padding, which no kernel reads
	if problems := strings.Count(string(out), "? no"); problems != strings.Count(string(out), "Padding at end of inode bitmap is not set") || !strings.Contains(string(out), "Pass 5") {
		t.Fatalf("%s: %s", i.Source, out)
	}
	if got := debugfs(t, i.Path(), "cat /etc/motd"); got != "hello\n" {
		t.Errorf("%s: /etc/motd has %q", i.Source, got)
	}
	for name, want := range map[string][]string{
		"/etc/motd":    {"Mode:  0640", "User:     7   Group:     8"},
		"/usr/bin/su":  {"Mode:  04755", "Links: 2"},
		"/usr/bin":     {"Type: directory"},
		"/bin":         {"Type: symlink", "usr/bin"},
		"/usr/bin/../": {"Mode:  0755"},
	} {
		got := debugfs(t, i.Path(), "stat "+name)
		for _, w := range want {
			if !strings.Contains(got, w) {
				t.Errorf("%s: %s: no %q in %q", i.Source, name, w, got)
			}
		}
	}
}

// The same root file system in every form that it may come in.
func TestImport(t *testing.T) {
	s := Store{Dir: t.TempDir()}
	plain := rootTar(t)
	var gz bytes.Buffer
	w := gzip.NewWriter(&gz)
	_, _ = w.Write(plain)
	_ = w.Close()
	dir := t.TempDir()
	if out, err := exec.Command("tar", "-C", dir, "-xpf", file(t, "r.tar", plain)).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	digests := map[string]bool{}
	for name, from := range map[string]From{
		"archive":    {Path: file(t, "root.tar", plain)},
		"compressed": {Path: file(t, "root.tar.gz", gz.Bytes())},
		"stream":     {Path: "standard input", In: io.MultiReader(bytes.NewReader(plain))},
		"layout":     {Path: layout(t, plain)},
		"saved":      {Path: file(t, "saved.tar", dockerSave(t, plain))},
	} {
		image, err := s.Import(t.Context(), name, from)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		check(t, image)
		digests[image.SHA256] = true
		if opened, err := s.Open(name); err != nil || cmp.Diff(image.SHA256, opened.SHA256) != "" {
			t.Errorf("%s: %+v, %v", name, opened, err)
		}
		if isImage := name == "layout" || name == "saved"; isImage != strings.HasPrefix(image.Digest, "sha256:") {
			t.Errorf("%s: digest %q", name, image.Digest)
		}
	}
	if len(digests) != 1 {
		t.Errorf("%d different images of the same files", len(digests))
	}
	if os.Geteuid() == 0 { // who else can own nothing for others
		image, err := s.Import(t.Context(), "directory", From{Path: dir})
		if err != nil {
			t.Fatal(err)
		}
		check(t, image)
	}
	images, err := s.List()
	if err != nil || len(images) < 5 {
		t.Errorf("%d images, %v", len(images), err)
	}
	if err := s.Remove(t.Context(), "stream"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open("stream"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a removed image: %v", err)
	}
	if err := s.Remove(t.Context(), "stream"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("removed twice: %v", err)
	}
	left, err := filepath.Glob(filepath.Join(s.Dir, ".new-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left: %q, %v", left, err)
	}
}

func hexOf(b []byte) string { return fmt.Sprintf("%x", sha256.Sum256(b)) }

func configOf(layer []byte) []byte {
	return fmt.Appendf(nil, `{"os":"linux","architecture":%q,"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}`, runtime.GOARCH, hexOf(layer))
}

// layout writes an OCI image layout of one layer.
func layout(t *testing.T, layer []byte) string {
	t.Helper()
	dir := t.TempDir()
	blobs := filepath.Join(dir, "blobs", "sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		t.Fatal(err)
	}
	blob := func(kind string, b []byte) string {
		if err := os.WriteFile(filepath.Join(blobs, hexOf(b)), b, 0o644); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.%s","digest":"sha256:%s","size":%d}`, kind, hexOf(b), len(b))
	}
	manifest := fmt.Appendf(nil, `{"schemaVersion":2,"config":%s,"layers":[%s]}`, blob("config.v1+json", configOf(layer)), blob("layer.v1.tar", layer))
	index := fmt.Appendf(nil, `{"schemaVersion":2,"manifests":[%s]}`, blob("manifest.v1+json", manifest))
	for name, b := range map[string][]byte{"index.json": index, "oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`)} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func dockerSave(t *testing.T, layer []byte) []byte {
	config := configOf(layer)
	manifest := fmt.Sprintf(`[{"Config":"%s.json","RepoTags":["x:1"],"Layers":["layer.tar"]}]`, hexOf(config))
	return archive(t,
		&tar.Header{Name: hexOf(config) + ".json", Typeflag: tar.TypeReg, Uname: string(config)},
		&tar.Header{Name: "layer.tar", Typeflag: tar.TypeReg, Uname: string(layer)},
		&tar.Header{Name: "manifest.json", Typeflag: tar.TypeReg, Uname: manifest},
	)
}

func TestImportRefuses(t *testing.T) {
	s := Store{Dir: t.TempDir()}
	damaged := layout(t, rootTar(t))
	blobs, err := filepath.Glob(filepath.Join(damaged, "blobs/sha256/*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range blobs {
		if info, err := os.Stat(b); err == nil && info.Size() > 2000 { // the layer
			if err := os.WriteFile(b, append([]byte{1}, make([]byte, info.Size()-1)...), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, from := range map[string]From{
		"garbage":     {Path: file(t, "x", bytes.Repeat([]byte("no archive "), 100))},
		"upwards":     {Path: file(t, "x.tar", archive(t, &tar.Header{Name: "../../etc/x", Typeflag: tar.TypeReg, Uname: "x"}))},
		"damaged":     {Path: damaged},
		"not there":   {Path: "/nowhere"},
		"wrong tag":   {Path: layout(t, rootTar(t)), Tag: "v9"},
		"cut archive": {Path: file(t, "x.tar", rootTar(t)[:2000])},
	} {
		if _, err := s.Import(t.Context(), "image", from); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := s.Import(t.Context(), "../x", From{Path: "/"}); err == nil {
		t.Error("a name that leads elsewhere was taken")
	}
	entries, err := os.ReadDir(s.Dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != ".lock-image" {
		t.Errorf("left: %v, %v", entries, err)
	}
}

// A full disk is said to be one, with what helps, and nothing is left on it.
func TestNoSpace(t *testing.T) {
	dir := t.TempDir()
	if os.Geteuid() != 0 {
		t.Skip("mounts a small disk, which needs root")
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }()
	big := archive(t, &tar.Header{Name: "big", Typeflag: tar.TypeReg, Uname: strings.Repeat("x", 1<<20)})
	_, err := (Store{Dir: dir}).Import(t.Context(), "image", From{Path: file(t, "big.tar", big)})
	var e *Error
	if !errors.As(err, &e) || !errors.Is(err, unix.ENOSPC) || !strings.Contains(e.Hint, "TORNO_IMAGES") {
		t.Errorf("%v", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

// A second build of an image waits for the first and says for whom; a build that was killed leaves what the next one
// removes, and the image that was there.
func TestBuildsOneByOne(t *testing.T) {
	dir := t.TempDir()
	said := make(chan string, 1)
	s := Store{Dir: dir, Waiting: func(line string) { said <- line }}
	from := From{Path: file(t, "root.tar", rootTar(t))}
	if _, err := s.Import(t.Context(), "image", from); err != nil {
		t.Fatal(err)
	}
	half := filepath.Join(dir, unfinished("image")+"123")
	others := filepath.Join(dir, unfinished("image-2")+"123")
	if err := errors.Join(os.Mkdir(half, 0o755), os.WriteFile(filepath.Join(half, imageFile), make([]byte, 100), 0o644), os.Mkdir(others, 0o755)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Open("image"); err != nil {
		t.Errorf("while it is half built anew: %v", err)
	}
	release, err := s.hold(t.Context(), "image")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(half); err == nil {
		t.Error("what a killed build left is there")
	}
	if _, err := os.Stat(others); err != nil {
		t.Error("what another build is at is gone")
	}
	done := make(chan error, 1)
	go func() { _, err := s.Import(context.WithoutCancel(t.Context()), "image", from); done <- err }()
	if line := <-said; !strings.Contains(line, fmt.Sprint(os.Getpid())) {
		t.Errorf("%q does not name us", line)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := (Store{Dir: dir}).Import(ctx, "image", from); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("one who does not wait: %v", err)
	}
	select {
	case err := <-done:
		t.Errorf("the second build did not wait: %v", err)
	default:
	}
	release()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
