package keyring

import (
	"strings"
	"testing"
	"time"
)

// What a command says where it fails is in the error, bounded and escaped, and never with the secret; one that does not end is
// ended.
func TestCommandSays(t *testing.T) {
	const key = "5f2c9e8d7b6a41039f8e7d6c5b4a3928"
	for name, c := range map[string]struct {
		script, want string
	}{
		"why":            {"echo the TPM is locked out >&2; exit 3", "/bin/sh: exit status 3: the TPM is locked out"},
		"controls":       {`printf 'a\033[2Jb' >&2; exit 1`, `/bin/sh: exit status 1: a\x1b[2Jb`},
		"the secret":     {"echo " + key + "; echo got " + key + " >&2; exit 1", "/bin/sh: exit status 1 (what it said held the secret)"},
		"a part of it":   {"echo " + key + "; echo got " + key[9:17] + " >&2; exit 1", "/bin/sh: exit status 1 (what it said held the secret)"},
		"nothing at all": {"echo no such key >&2", "/bin/sh: a secret of 1 to 4096 bytes is wanted: no such key"},
	} {
		s, err := Command{Argv: []string{"/bin/sh", "-c", c.script}}.Secret()
		if err == nil || err.Error() != c.want || s.Len() > 0 {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
	_, err := Command{Argv: []string{"/bin/sh", "-c", "head -c 10000000 /dev/zero | tr '\\0' x >&2; exit 1"}}.Secret()
	if err == nil || len(err.Error()) > 2*maxSaid || !strings.Contains(err.Error(), "xxx") {
		t.Errorf("a flood: %.60v", err)
	}
	if s, err := (Command{Argv: []string{"/bin/sh", "-c", "echo touch the key >&2; echo " + key}}).Secret(); err != nil || s.Len() != len(key) {
		t.Errorf("the control: %v", err)
	}
	old := commandTimeout
	defer func() { commandTimeout = old }()
	commandTimeout = 200 * time.Millisecond
	began := time.Now()
	if _, err := (Command{Argv: []string{"/bin/sleep", "600"}}).Secret(); err == nil || !strings.Contains(err.Error(), "did not end") || time.Since(began) > time.Minute {
		t.Errorf("one that does not end: %v", err)
	}
	began = time.Now()
	if _, err := (Command{Argv: []string{"/bin/sh", "-c", "sleep 40 2>/dev/null & echo " + key}}).Secret(); err == nil || !strings.Contains(err.Error(), "did not end") || time.Since(began) > 20*time.Second {
		t.Errorf("one that leaves somebody behind, after %v: %v", time.Since(began), err)
	}
}
