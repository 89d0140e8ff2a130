package main_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestSecretsPage runs every command of docs/secrets.md, in order, and compares what it prints. There "…" stands
// for anything.
func TestSecretsPage(t *testing.T) {
	if testing.Short() {
		t.Skip("needs real processes; run without -short")
	}
	page, err := os.ReadFile("../docs/secrets.md")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "tp") // short, for the socket's path
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	defer stopBroker(t, filepath.Join(dir, "torno", "control"))
	for name, text := range map[string]string{
		"anthropic.key": "sk-ant-made-up-0123456789abcdef\n",
		"acme.token":    "acme-made-up-0123456789abcdef\n",
		"app.env":       "PORT=3000\nANTHROPIC_API_KEY=sk-ant-made-up-0123456789abcdef\nDATABASE_URL='postgresql://app@db/app'\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	commands := 0
	for _, block := range regexp.MustCompile("(?ms)^```console\n(.*?)^```").FindAllStringSubmatch(string(page), -1) {
		for _, step := range strings.Split("\n"+block[1], "\n$ ")[1:] {
			command, want, _ := strings.Cut(step, "\n")
			cmd := exec.Command("sh", "-c", command)
			cmd.Dir = dir
			cmd.Env = []string{"PATH=" + bin + ":/usr/local/bin:/usr/bin:/bin", "HOME=" + dir, "XDG_RUNTIME_DIR=" + dir, "TORNO_STATE=" + filepath.Join(dir, "state")}
			got, err := cmd.CombinedOutput()
			if err != nil || !shown(want).MatchString(string(got)) {
				t.Fatalf("$ %s\n%s%v, want\n%s", command, got, err, want)
			}
			commands++
		}
	}
	if commands < 8 {
		t.Errorf("%d commands were run", commands)
	}
}

// shown matches output as a page shows it.
func shown(want string) *regexp.Regexp {
	pattern := strings.ReplaceAll(regexp.QuoteMeta(strings.TrimRight(want, "\n")), "…", ".*")
	return regexp.MustCompile(`(?m)\A` + pattern + `\n?\z`)
}
