package cli

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

// guestName is the guest's executable.
const guestName = "torno-guest"

// findGuest finds torno-guest: as told, beside torno, or in PATH.
func (l *launch) findGuest() (string, error) {
	if l.guest != "" {
		return filepath.Abs(l.guest)
	}
	if self, err := os.Executable(); err == nil {
		if path := filepath.Join(filepath.Dir(self), guestName); isExecutable(path) {
			return path, nil
		}
	}
	if path, err := exec.LookPath(guestName); err == nil {
		return filepath.Abs(path)
	}
	return "", &hintError{errors.New(guestName + " is not there"), "it belongs beside torno (make build); --guest names another place"}
}

func isExecutable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0
}

// A tailBuffer keeps the last bytes written to it. It is safe for concurrent use.
type tailBuffer struct {
	limit int

	mu sync.Mutex
	b  []byte
}

func (t *tailBuffer) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if over := len(t.b) - t.limit; over > 0 {
		t.b = append(t.b[:0], t.b[over:]...)
	}
	return len(p), nil
}

func (t *tailBuffer) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.b))
}
