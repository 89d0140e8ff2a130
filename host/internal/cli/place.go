package cli

import (
	"fmt"
	"os"
	"path/filepath"

	"torno.internal/host/internal/run"
	"torno.internal/protocol/control"
)

// maxSocketDir is the longest runtime directory whose sockets fit sockaddr_un: 107 bytes less a session's
// directory of 8 and the socket's own name.
const maxSocketDir = 107 - len("/12345678/b")

// stateDir returns where the broker keeps its state.
func stateDir() (string, error) {
	if dir := os.Getenv("TORNO_STATE"); dir != "" {
		return filepath.Abs(dir)
	}
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "torno"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", &hintError{fmt.Errorf("no place for state: %w", err), "set TORNO_STATE"}
	}
	return filepath.Join(home, ".local", "state", "torno"), nil
}

// runtimeDir returns where sockets stand.
func runtimeDir() (string, error) {
	dir := "/run/torno"
	if base := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(base) {
		dir = filepath.Join(base, "torno")
	} else if os.Geteuid() != 0 {
		return "", &hintError{fmt.Errorf("no place for sockets: XDG_RUNTIME_DIR is not set"), "log in with a session, or set XDG_RUNTIME_DIR to a private directory"}
	}
	if len(dir) > maxSocketDir {
		return "", &hintError{fmt.Errorf("runtime directory %q is %d bytes long, at most %d fit a socket's path", dir, len(dir), maxSocketDir), "set XDG_RUNTIME_DIR to a shorter one"}
	}
	return dir, nil
}

// controlSocket returns the path of the broker's control socket.
func controlSocket() (string, error) {
	dir, err := runtimeDir()
	return filepath.Join(dir, control.SocketName), err
}

func terminalOf(f *os.File) bool {
	_, ok := run.OpenTerminal(f)
	return ok
}
