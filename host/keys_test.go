package main_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"torno.internal/protocol/control"
	"torno.internal/protocol/seal"
)

// spellings are how a value may stand in a file: as it is, and as encoders write it.
func spellings(value string) []string {
	out := []string{value, hex.EncodeToString([]byte(value)), strings.ToUpper(hex.EncodeToString([]byte(value)))}
	for shift := range 3 { // base64 at each alignment, without what depends on neighbours
		for _, e := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			s := e.EncodeToString([]byte(value[shift:]))
			out = append(out, s[:len(s)-4])
		}
	}
	return out
}

// findIn returns the spelling of value that stands in text, or nothing.
func findIn(text, value string) string {
	for _, s := range spellings(value) {
		if strings.Contains(text, s) {
			return s
		}
	}
	return ""
}

// below returns everything in the files of a directory.
func below(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		files[path] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// S2: encrypted at rest: no value stands in the state directory, a backup, or what is sealed elsewhere, in any
// spelling; and who seals can't open again, only the broker's key can.
func TestMissionS2EncryptedAtRest(t *testing.T) {
	h := newHouse(t, "")
	h.secrets()
	h.must("store", "backup", "torno.backup")
	h.write("broker.pub", h.must("secrets", "export-public-key"))
	h.write("key", anthropicKey)
	blob := h.must("secrets", "seal", "--to", "broker.pub", "other", "ANTHROPIC_API_KEY=@key")
	files := below(t, filepath.Join(h.dir, "state"))
	files["backup"] = below(t, h.work)[filepath.Join(h.work, "torno.backup")]
	files["sealed"] = blob
	names := 0
	for path, content := range files {
		for _, value := range []string{anthropicKey, openaiKey, "postgresql://app@db/app"} {
			if s := findIn(content, value); s != "" {
				t.Errorf("%s holds %q", path, s)
			}
		}
		if strings.Contains(content, "ANTHROPIC_API_KEY") {
			names++
		}
	}
	if names < 3 { // the control: names are not encrypted, so the search reads the right files
		t.Errorf("the name stands in %d of %d files", names, len(files))
	}
	if findIn("x"+base64.StdEncoding.EncodeToString([]byte("k="+anthropicKey)), anthropicKey) == "" {
		t.Error("the search finds nothing")
	}

	block, _ := pem.Decode([]byte(blob))
	s, err := control.DecodeSealed(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	aad := control.AssociatedData(s.Meta, s.KeyID)
	another, err := seal.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := another.Open(s.Sealed, aad); !errors.Is(err, seal.ErrOpen) {
		t.Errorf("another key: %v", err)
	}
	raw := files[filepath.Join(h.dir, "state", "key")] // not protected: the seed stands before its checksum
	private, err := seal.ParsePrivateKey([]byte(raw[len(raw)-64 : len(raw)-32]))
	if err != nil {
		t.Fatal(err)
	}
	if v, err := private.Open(s.Sealed, aad); err != nil || string(v.AppendTo(nil)) != anthropicKey {
		t.Errorf("the broker's key: %v", err)
	}
}

// S6: write-only: nothing that a person or a program can ask of torno shows a value.
func TestMissionS6WriteOnly(t *testing.T) {
	h := newHouse(t, "")
	h.secrets()
	asked := 0
	for _, args := range [][]string{
		{"secrets", "list"}, {"secrets", "list", "--json"}, {"secrets", "list", "my-agent"}, {"secrets", "export-public-key"},
		{"secrets", "export-public-key", "--json"}, {"audit", "tail", "--last", "100", "--json"}, {"audit", "verify", "--json"},
		{"sessions", "list", "--json"}, {"key", "show", "--json"}, {"store", "verify", "--json"}, {"doctor"},
		{"policy", "check", "my-agent", "GET", "https://api.anthropic.com/v1/models"},
		{"secrets", "delete", "my-agent", "OPENAI_API_KEY"},
	} {
		r := h.torno(args...)
		if r.code != 0 && args[0] != "doctor" {
			t.Errorf("torno %q: exit %d, %s", args, r.code, r.stderr)
		}
		asked += len(r.stdout)
		for _, value := range []string{anthropicKey, openaiKey, "postgresql://app@db/app"} {
			if s := findIn(r.stdout+r.stderr, value); s != "" {
				t.Errorf("torno %q shows %q", args, s)
			}
		}
	}
	if asked < 1000 {
		t.Errorf("%d bytes were searched", asked)
	}
	for _, verb := range []string{"get", "show", "read", "export", "history"} {
		if r := h.torno("secrets", verb, "my-agent", "ANTHROPIC_API_KEY"); findIn(r.stdout+r.stderr, anthropicKey) != "" {
			t.Errorf("torno secrets %s shows the value", verb)
		}
	}
	if s := findIn(h.log.String(), anthropicKey); s != "" {
		t.Errorf("the log holds %q", s)
	}
}

// killBrokers is how often TestAttack36KillBroker kills.
const killBrokers = 12

// The real broker is killed at random moments while secrets are set, replaced and revoked and its key is rotated:
// nothing that a command acknowledged is lost, the store and the audit verify, and a rotation comes to its end.
func TestAttack36KillBroker(t *testing.T) {
	h := newHouse(t, "")
	// A command that finds no broker would start one: without a log it does not.
	if err := os.Mkdir(filepath.Join(h.dir, "state", "serve.log"), 0o700); err != nil {
		t.Fatal(err)
	}
	acknowledged, rotated := 0, 0
	for round := range killBrokers {
		stop, done := make(chan struct{}), make(chan [2]int)
		go func() { done <- h.churn(round, acknowledged, stop) }()
		time.Sleep(time.Duration(100+rand.IntN(900)) * time.Millisecond)
		_ = h.serve.Process.Kill()
		_ = h.serve.Wait()
		close(stop)
		got := <-done
		acknowledged = max(acknowledged, got[0])
		rotated += got[1]
		h.startBroker()
		if out := h.must("secrets", "list", "my-agent", "--json"); acknowledged > 0 && versionOf(out) < acknowledged {
			t.Fatalf("round %d: version %d is there, %d was acknowledged", round, versionOf(out), acknowledged)
		}
		for _, args := range [][]string{{"store", "verify"}, {"audit", "verify"}} {
			if r := h.torno(args...); r.code != 0 {
				t.Fatalf("round %d: torno %q: %s%s", round, args, r.stdout, r.stderr)
			}
		}
		if s := h.log.String(); strings.Contains(s, "not what the audit has recorded") {
			t.Fatalf("round %d: the broker takes a kill for an attack:\n%s", round, s)
		}
	}
	if acknowledged < 3 || rotated == 0 {
		t.Errorf("%d sets and %d rotations were acknowledged: little was tested", acknowledged, rotated)
	}
	h.must("key", "rotate")
	h.must("secrets", "list", "my-agent")
	t.Logf("%d versions and %d rotations in %d kills", acknowledged, rotated, killBrokers)
}

// churn sets versions, revokes them and rotates until the broker is gone, and returns the last version and how many
// rotations were acknowledged.
func (h *house) churn(round, version int, stop chan struct{}) (got [2]int) {
	got[0] = version
	for i := 0; ; i++ {
		select {
		case <-stop:
			return got
		default:
		}
		args := []string{"secrets", "set", "my-agent", "ANTHROPIC_API_KEY=" + anthropicKey}
		switch i % 4 {
		case 1:
			args = []string{"secrets", "revoke", "my-agent", "ANTHROPIC_API_KEY"}
		case 3:
			args = []string{"key", "rotate"}
		case 2:
			args = []string{"secrets", "set", "passing", fmt.Sprintf("K_%d=%s", round, customKey), "--host", "api.example.org"}
		}
		cmd := h.command(args...)
		cmd.Env = append(cmd.Env, "PATH=/usr/bin:/bin")
		out, err := cmd.Output()
		switch {
		case err != nil:
			return got // killed, or no longer there
		case args[0] == "key":
			got[1]++
		case args[1] == "set" && args[2] == "my-agent":
			_, rest, _ := bytes.Cut(out, []byte("version "))
			var v int
			if _, err := fmt.Sscan(string(bytes.TrimSuffix(bytes.Fields(rest)[0], []byte(","))), &v); err == nil {
				got[0] = max(got[0], v)
			}
		}
	}
}

// versionOf returns the first version in the JSON of a list.
func versionOf(list string) (v int) {
	_, rest, _ := strings.Cut(list, `"version": `)
	_, _ = fmt.Sscan(strings.TrimRight(strings.SplitN(rest, "\n", 2)[0], ","), &v)
	return v
}

// Attack 39: a state directory that is a link, open to others or somebody else's is refused, with what to do.
func TestAttack39StateDirectory(t *testing.T) {
	h := newHouse(t, "")
	for name, c := range map[string]struct {
		prepare func(dir string) error
		want    string
	}{
		"a link":         {func(dir string) error { return os.Symlink(filepath.Join(h.dir, "state"), dir) }, "symbolic link"},
		"writable":       {func(dir string) error { return errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o777)) }, "chmod 700"},
		"readable":       {func(dir string) error { return errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o750)) }, "chmod 700"},
		"somebody's":     {func(dir string) error { return errors.Join(os.Mkdir(dir, 0o700), os.Chown(dir, 12345, 12345)) }, "belongs to user 12345"},
		"key for others": {func(dir string) error { return brokenKey(dir) }, "chmod 600"},
	} {
		t.Run(name, func(t *testing.T) {
			if os.Geteuid() != 0 && name == "somebody's" {
				t.Skip("needs root, to make a directory of somebody else's")
			}
			dir := filepath.Join(t.TempDir(), "state")
			if err := c.prepare(dir); err != nil {
				t.Fatal(err)
			}
			r := h.elsewhere(dir, "serve")
			if r.code != 1 || !strings.Contains(r.stderr, c.want) || !strings.Contains(r.stderr, "\nhint: ") {
				t.Errorf("exit %d, %q; want %q and a hint", r.code, r.stderr, c.want)
			}
		})
	}
}

// brokenKey makes a state directory whose key file others can read.
func brokenKey(dir string) error {
	return errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, "key"), make([]byte, 110), 0o644), os.Chmod(filepath.Join(dir, "key"), 0o644))
}

// elsewhere runs torno with another state directory and a runtime directory of its own.
func (h *house) elsewhere(state string, args ...string) result {
	h.t.Helper()
	rt, err := os.MkdirTemp("", "tk")
	if err != nil {
		h.t.Fatal(err)
	}
	defer os.RemoveAll(rt)
	cmd := h.command(args...)
	cmd.Env = append(os.Environ(), "TORNO_STATE="+state, "XDG_RUNTIME_DIR="+rt)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		h.t.Fatal(err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// Attack 40: a second broker on one state directory says which process holds it, and touches nothing.
func TestAttack40TwoBrokers(t *testing.T) {
	h := newHouse(t, "")
	h.secrets()
	r := h.elsewhere(filepath.Join(h.dir, "state"), "serve")
	if want := fmt.Sprintf("in use by process %d", h.serve.Process.Pid); r.code != 1 || !strings.Contains(r.stderr, want) || !strings.Contains(r.stderr, "\nhint: ") {
		t.Errorf("exit %d, %q; want %q and a hint", r.code, r.stderr, want)
	}
	h.must("secrets", "list", "my-agent")
	h.must("store", "verify")
}
