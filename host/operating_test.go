package main_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// fenced returns the blocks of a language in a page of Markdown, one after the other.
func fenced(page, language string) string {
	var out strings.Builder
	in := false
	for line := range strings.Lines(page) {
		switch {
		case strings.HasPrefix(line, "```"):
			in = strings.TrimSpace(line) == "```"+language
		case in:
			out.WriteString(line)
		}
	}
	return out.String()
}

// Every command of docs/operating.md, in its order, on a state directory of its own.
func TestOperatingCommands(t *testing.T) {
	if testing.Short() {
		t.Skip("needs real processes; run without -short")
	}
	page, err := os.ReadFile("../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	script := fenced(string(page), "sh")
	// A broker that was just started in the background may not answer yet.
	script = strings.ReplaceAll(script, "<passphrase.txt &\n", "<passphrase.txt &\nuntil [ -S \"$XDG_RUNTIME_DIR/torno/control\" ]; do sleep 0.1; done\n")
	// Nobody reaps what ends here: the test is where orphans go.
	script = strings.ReplaceAll(script, `tail --pid="$pid" -f /dev/null`, `until ! grep -q '^State:.[^Z]' "/proc/$pid/status"; do sleep 0.1; done`)
	if n := strings.Count(script, "torno "); n < 15 {
		t.Fatalf("%d commands found", n)
	}
	dir, err := os.MkdirTemp("", "to") // short, for the socket's path
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	const passphrase = "correct horse battery staple"
	for name, content := range map[string]string{"anthropic.key": anthropicKey + "\n", "acme.key": customKey, "passphrase.txt": passphrase + "\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-eux", "-c", script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+bin+":/usr/bin:/bin", "TORNO_STATE="+filepath.Join(dir, "state"), "XDG_RUNTIME_DIR="+filepath.Join(dir, "rt"))
	cmd.Stdin = strings.NewReader(strings.Repeat(passphrase+"\n", 3)) // of protect, of split, of verifying the backup
	out, err := os.Create(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	defer stopBroker(t, filepath.Join(dir, "rt", "torno", "control"))
	if err := os.Mkdir(filepath.Join(dir, "rt"), 0o700); err != nil {
		t.Fatal(err)
	}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGKILL) }
	runErr := cmd.Run()
	text, err := os.ReadFile(out.Name())
	if err != nil || runErr != nil {
		t.Fatalf("%v, %v\n%s", runErr, err, text)
	}
	for _, want := range []string{"protected by: passphrase", "shares/share-3", "a good backup: 1 secrets", "is recovered", "restored: 1 secrets",
		"ACME_TOKEN: is imported for agent my-agent, version 1", "the store is as torno wrote it: 2 secrets"} {
		if !bytes.Contains(text, []byte(want)) {
			t.Errorf("the output lacks %q", want)
		}
	}
	for _, secret := range []string{anthropicKey, customKey, passphrase} {
		if bytes.Contains(text, []byte(secret)) {
			t.Errorf("the output holds %s…", secret[:4])
		}
	}
	if t.Failed() {
		fmt.Printf("%s\n", text)
	}
}
