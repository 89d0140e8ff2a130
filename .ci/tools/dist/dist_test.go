package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// commit is a commit's time that all tests share.
var commit = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// dist makes a release of the repository at root and returns where it is.
func dist(t *testing.T, root, version string, arches ...string) string {
	t.Helper()
	r := release{root: root, out: filepath.Join(t.TempDir(), "dist"), version: version, arches: arches}
	t.Setenv("SOURCE_DATE_EPOCH", "1767323045")
	if err := r.run(); err != nil {
		t.Fatal(err)
	}
	return r.out
}

// run runs a program that has to succeed and returns what it prints.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s%s", name, args, err, out, &stderr)
	}
	return string(out)
}

// one returns the only file that a pattern matches.
func one(t *testing.T, dir, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(found) != 1 {
		t.Fatalf("%s: %q, %v", pattern, found, err)
	}
	return found[0]
}

// TestVersions has dpkg say which of two versions is the newer one.
func TestVersions(t *testing.T) {
	later := commit.Add(time.Hour)
	ordered := []string{
		packageVersion("zz9ff8a", commit), packageVersion("0000000", later), packageVersion("0000000-dirty", later),
		packageVersion("v0.1.0", commit), packageVersion("v0.1.0-3-g9ff8aab", commit), packageVersion("v0.1.0-12-g0000000", commit),
		packageVersion("v0.2.0", later), packageVersion("0.10.0", later),
	}
	for i, v := range ordered {
		if !regexp.MustCompile(`^[0-9][0-9A-Za-z.+~]*$`).MatchString(v) {
			t.Errorf("%q is no version", v)
		}
		if i > 0 {
			run(t, "dpkg", "--compare-versions", ordered[i-1], "lt", v)
		}
	}
}

// TestDist makes all packages for this machine, twice, with another umask and another time zone in between, and looks into
// them.
func TestDist(t *testing.T) {
	out := dist(t, "../../..", "v0.1.0", runtime.GOARCH)
	old := syscall.Umask(0o077)
	t.Setenv("TZ", "Asia/Kathmandu")
	again := dist(t, "../../..", "v0.1.0", runtime.GOARCH)
	syscall.Umask(old)
	sums := read(t, filepath.Join(out, "SHA256SUMS"))
	if other := read(t, filepath.Join(again, "SHA256SUMS")); sums != other || strings.Count(sums, "\n") != 4 {
		t.Errorf("one commit made\n%s\nand\n%s", sums, other)
	}
	check := exec.Command("sha256sum", "--check", "--strict", "SHA256SUMS")
	check.Dir = out
	if b, err := check.CombinedOutput(); err != nil {
		t.Errorf("%s", b)
	}
	deb := run(t, "dpkg-deb", "-c", one(t, out, "*.deb"))
	archive := run(t, "tar", "-tvzf", one(t, out, "*.tar.gz"))
	for _, f := range fixed {
		if f.formats == nil || slices.Contains(f.formats, inDeb) {
			if !strings.Contains(deb, " ."+f.to) {
				t.Errorf("the deb lacks %s", f.to)
			}
		}
		if (f.formats == nil || slices.Contains(f.formats, inTar)) && !strings.Contains(archive, f.to) {
			t.Errorf("the archive lacks %s", f.to)
		}
	}
	for _, page := range []string{"man1/torno.1.gz", "man1/torno-run.1.gz", "man5/torno.toml.5.gz", "man8/torno-guest.8.gz"} {
		if !strings.Contains(deb, " ./usr/share/man/"+page) || !strings.Contains(archive, "/usr/share/man/"+page) {
			t.Errorf("%s is missing", page)
		}
	}
	for _, list := range []string{deb, archive} {
		for line := range strings.Lines(list) {
			if !strings.HasPrefix(line, "-rw-r--r-- root/root ") && !strings.HasPrefix(line, "-rwxr-xr-x root/root ") && !strings.HasPrefix(line, "drwxr-xr-x root/root ") {
				t.Errorf("owner or mode: %s", line)
			}
			if !strings.Contains(line, "2026-01-02") {
				t.Errorf("another time than the commit's: %s", line)
			}
		}
	}
	if conffiles := run(t, "dpkg-deb", "-I", one(t, out, "*.deb"), "conffiles"); conffiles != "/etc/torno/broker.toml\n" {
		t.Errorf("conffiles: %q", conffiles)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestBOM compares the bill of materials with what the program says of itself.
func TestBOM(t *testing.T) {
	out := dist(t, "../../..", "v0.1.0", runtime.GOARCH)
	root := t.TempDir()
	run(t, "tar", "-xzf", one(t, out, "*.tar.gz"), "-C", root, "--strip-components=1")
	var bom struct {
		BOMFormat, SpecVersion string
		Components             []struct {
			Name, Version, PURL string
			Licenses            []struct{ License struct{ ID string } }
			Hashes              []struct{ Content string }
		}
	}
	if err := json.Unmarshal([]byte(read(t, one(t, out, "*.cdx.json"))), &bom); err != nil {
		t.Fatal(err)
	}
	if bom.BOMFormat != "CycloneDX" || bom.SpecVersion != "1.6" {
		t.Errorf("%s %s", bom.BOMFormat, bom.SpecVersion)
	}
	var listed, linked []string
	for _, c := range bom.Components {
		if len(c.Licenses) == 0 || c.Licenses[0].License.ID == "" {
			t.Errorf("%s has no licence", c.Name)
		}
		if c.PURL != "" && c.Name != "std" {
			listed = append(listed, c.Name+"@"+c.Version)
		}
		if len(c.Hashes) == 1 && !strings.HasPrefix(run(t, "sha256sum", filepath.Join(root, "usr/bin", c.Name)), c.Hashes[0].Content+" ") {
			t.Errorf("the hash of %s", c.Name)
		}
	}
	for _, name := range []string{"torno", "torno-guest"} {
		for _, m := range regexp.MustCompile(`(?m)^\tdep\t(\S+)\t(\S+)`).FindAllStringSubmatch(run(t, "go", "version", "-m", filepath.Join(root, "usr/bin", name)), -1) {
			linked = append(linked, m[1]+"@"+m[2])
		}
	}
	slices.Sort(listed)
	slices.Sort(linked)
	if linked = slices.Compact(linked); len(linked) < 20 || !slices.Equal(listed, linked) {
		t.Errorf("listed\n%q\nlinked\n%q", listed, linked)
	}
	if _, err := licencesIn(read(t, "../../../NOTICE"), "example.org/unknown"); err == nil {
		t.Error("a module that NOTICE does not know passes")
	}
}

// The scripts of the packages are of any shell.
func TestScripts(t *testing.T) {
	for _, name := range []string{"postinstall", "preremove", "postremove"} {
		run(t, "dash", "-n", filepath.Join("package", name))
	}
}
