package main_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The commands of docs/images.md that need nothing but files, one after the other.
func TestImagesDocument(t *testing.T) {
	needVM(t) // for the kernel, which image build gets
	document, err := os.ReadFile("../docs/images.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(document), "```sh\n")
	block, _, _ = strings.Cut(block, "```")
	dir := imageFiles(t)
	images := filepath.Join(dir, "images")
	if err := errors.Join(os.Mkdir(images, 0o755), os.Symlink("/var/lib/torno/images/.kernels", filepath.Join(images, ".kernels"))); err != nil {
		t.Fatal(err)
	}
	ran := 0
	for line := range strings.Lines(block) {
		cmd := exec.Command("/bin/sh", "-c", line)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "TORNO_IMAGES="+images)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v: %s", line, err, stderrOf(err))
		}
		switch {
		case strings.Contains(line, "image build") && !strings.HasPrefix(string(out), "image mine: "):
			t.Errorf("%s: %q", line, out)
		case strings.Contains(line, "--json"):
			checkImageList(t, out)
		}
		ran++
	}
	if ran != 9 {
		t.Errorf("%d commands", ran)
	}
	if _, err := os.Stat(filepath.Join(images, "mine")); err == nil {
		t.Error("the image was not removed")
	}
}

func stderrOf(err error) string {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return string(exit.Stderr)
	}
	return ""
}

func checkImageList(t *testing.T, out []byte) {
	t.Helper()
	var list struct {
		Images []map[string]any `json:"images"`
	}
	if err := json.Unmarshal(out, &list); err != nil || len(list.Images) != 1 {
		t.Fatalf("%v: %s", err, out)
	}
	for _, field := range []string{"name", "source", "arch", "filesystem", "size", "sha256", "digest", "created"} {
		if v := list.Images[0][field]; v == nil || v == "" {
			t.Errorf("no %s in %s", field, out)
		}
	}
}

// imageFiles makes a small root file system in each form that the document names.
func imageFiles(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	write := func(name string, b []byte) {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, b, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	write("rootfs/etc/motd", []byte("hello\n"))
	root := archiveOf(t, "etc/motd", "hello\n")
	write("rootfs.tar", root)
	config := fmt.Sprintf(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:%x"]}}`, sha256.Sum256(root))
	name := fmt.Sprintf("%x.json", sha256.Sum256([]byte(config)))
	write("saved.tar", archiveOf(t, name, config, "layer.tar", string(root), "manifest.json", fmt.Sprintf(`[{"Config":%q,"RepoTags":["x:1"],"Layers":["layer.tar"]}]`, name)))

	blob := func(kind, more string, b []byte) string {
		write(fmt.Sprintf("layout/blobs/sha256/%x", sha256.Sum256(b)), b)
		return fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.%s","digest":"sha256:%x","size":%d%s}`, kind, sha256.Sum256(b), len(b), more)
	}
	manifest := fmt.Sprintf(`{"schemaVersion":2,"config":%s,"layers":[%s]}`, blob("config.v1+json", "", []byte(config)), blob("layer.v1.tar", "", root))
	tag := `,"annotations":{"org.opencontainers.image.ref.name":"v1"}`
	write("layout/index.json", fmt.Appendf(nil, `{"schemaVersion":2,"manifests":[%s]}`, blob("manifest.v1+json", tag, []byte(manifest))))
	write("layout/oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	return dir
}

// archiveOf writes an archive of files, by name and content in turn.
func archiveOf(t *testing.T, pairs ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(pairs); i += 2 {
		if err := w.WriteHeader(&tar.Header{Name: pairs[i], Mode: 0o755, Size: int64(len(pairs[i+1]))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(pairs[i+1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// An image that skopeo wrote, which is not ours, in both forms that it has.
func TestClientSkopeo(t *testing.T) {
	if _, err := exec.LookPath("skopeo"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("skopeo is not installed (make client-deps)")
		}
		t.Skip("skopeo is not installed (try: make client-deps)")
	}
	dir := imageFiles(t)
	images := filepath.Join(dir, "images")
	if err := errors.Join(os.Mkdir(images, 0o755), os.Symlink("/var/lib/torno/images/.kernels", filepath.Join(images, ".kernels"))); err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{"oci:theirs:v2", "oci-archive:theirs.tar:v2", "docker-archive:saved-by-them.tar:x:2"} {
		mustRun(t, dir, "skopeo", "--insecure-policy", "copy", "-q", "oci:layout:v1", to)
		path := strings.Split(to, ":")[1]
		cmd := exec.Command(filepath.Join(bin, "torno"), "image", "build", "--name", "theirs", "--from", path)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "TORNO_IMAGES="+images)
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "image theirs: ") {
			t.Errorf("%s: %v: %s", to, err, out)
		}
	}
}
