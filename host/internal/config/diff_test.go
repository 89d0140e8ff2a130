package config

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestEscapeControl(t *testing.T) {
	for in, want := range map[string]string{
		"":                          "",
		"plain ~ text":              "plain ~ text",
		"bücher 日本":                 "bücher 日本",
		"\x1b[31mred\x1b]0;t\x07":   `\x1b[31mred\x1b]0;t\a`,
		"a\tb\r\n\x00\x7f":          `a\tb\r\n\x00\x7f`,
		"\u009b31m":                 `\u009b31m`,
		"\u202egnp.exe":             `\u202egnp.exe`,
		"\u2066a\u2069\u200b\ufeff": `\u2066a\u2069\u200b\ufeff`,
		"a\u2028b\u00a0c":           `a\u2028b\u00a0c`,
		"\xff\x9b":                  `\xff\x9b`,
		"'quoted'":                  "'quoted'",
		"\U000e0041":                `\U000e0041`,
	} {
		if got := EscapeControl(in); got != want {
			t.Errorf("EscapeControl(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestDiff(t *testing.T) {
	tests := []struct{ name, old, new, want string }{
		{"equal", "a\n", "a\n", ""},
		{"first approval", "", "a\nb\n", "--- approved\n+++ torno.toml\n@@ -0,0 +1,2 @@\n+a\n+b\n"},
		{"emptied", "a\n", "", "--- approved\n+++ torno.toml\n@@ -1,1 +0,0 @@\n-a\n"},
		{"one line", "1\n2\n3\n4\n5\n6\n7\n8\n9\n", "1\n2\n3\n4\nX\n6\n7\n8\n9\n",
			"--- approved\n+++ torno.toml\n@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-5\n+X\n 6\n 7\n 8\n"},
		{"two hunks", "1\n2\n3\n4\n5\n6\n7\n8\n9\n", "0\n1\n2\n3\n4\n5\n6\n7\n8\n",
			"--- approved\n+++ torno.toml\n@@ -1,3 +1,4 @@\n+0\n 1\n 2\n 3\n@@ -6,4 +7,3 @@\n 6\n 7\n 8\n-9\n"},
		{"newline at the end", "a", "a\n", "--- approved\n+++ torno.toml\n@@ -1,1 +1,1 @@\n-a\n\\ No newline at end of file\n+a\n"},
	}
	for _, tt := range tests {
		if diff := cmp.Diff(tt.want, Diff("approved", "torno.toml", []byte(tt.old), []byte(tt.new))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestAttack48EscapesInDiff(t *testing.T) {
	old := "name = \"a\"\n"
	hostile := old + "# harmless\x1b[2K\x1b[1A\r\u202e\nallow = [\"*.example.com\"] # \x9b\x07\n"
	got := Diff("approved", "torno\x1b.toml", []byte(old), []byte(hostile))
	const want = `--- approved
+++ torno\x1b.toml
@@ -1,1 +1,3 @@
 name = "a"
+# harmless\x1b[2K\x1b[1A\r\u202e
+allow = ["*.example.com"] # \x9b\a
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// What Diff prints, patch(1) applies.
func TestPropertyDiffApplies(t *testing.T) {
	patch, err := exec.LookPath("patch")
	if err != nil {
		t.Skip("patch(1) is not installed; try: apt-get install patch")
	}
	dir := t.TempDir()
	text := rapid.Custom(func(t *rapid.T) string {
		s := strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c", "d"}), 0, 30).Draw(t, "lines"), "\n")
		return s + rapid.SampledFrom([]string{"", "\n"}).Draw(t, "end")
	})
	rapid.Check(t, func(t *rapid.T) {
		old, new := text.Draw(t, "old"), text.Draw(t, "new")
		path := filepath.Join(dir, "f")
		if err := os.WriteFile(path, []byte(old), 0o600); err != nil {
			t.Fatal(err)
		}
		diff := Diff("f", "f", []byte(old), []byte(new))
		if diff == "" {
			if old != new {
				t.Fatal("no diff of different texts")
			}
			return
		}
		cmd := exec.Command(patch, "-s", "-F0", path)
		cmd.Stdin = strings.NewReader(diff)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s\n%s", err, out, diff)
		}
		got, err := os.ReadFile(path)
		if err != nil && new != "" || string(got) != new {
			t.Fatalf("patched to %q, want %q (%v)\n%s", got, new, err, diff)
		}
	})
}

func TestDiffOfLargeFiles(t *testing.T) {
	a, b := strings.Repeat("a\n", MaxFile/2), strings.Repeat("b\n", MaxFile/2)
	start := time.Now()
	got := Diff("a", "b", []byte("same\n"+a+"end\n"), []byte("same\n"+b+"end\n"))
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("took %v", d)
	}
	if n := strings.Count(got, "\n-a"); n != MaxFile/2 {
		t.Errorf("%d lines removed, want %d", n, MaxFile/2)
	}
}
