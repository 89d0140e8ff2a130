package run

import (
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// A Terminal is the one that a person sits at. It is safe for concurrent use.
type Terminal struct {
	fd int

	mu    sync.Mutex
	saved *unix.Termios // nil: as it was
}

// OpenTerminal returns the terminal that f is; ok is false if it is none.
func OpenTerminal(f *os.File) (t *Terminal, ok bool) {
	fd := int(f.Fd())
	if _, err := unix.IoctlGetTermios(fd, unix.TCGETS); err != nil {
		return nil, false
	}
	return &Terminal{fd: fd}, true
}

// Raw lets every key through as a byte, ^C too (termios(3), cfmakeraw).
func (t *Terminal) Raw() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.saved != nil {
		return nil
	}
	saved, err := unix.IoctlGetTermios(t.fd, unix.TCGETS)
	if err != nil {
		return fmt.Errorf("terminal: %w", err)
	}
	raw := *saved
	raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	raw.Oflag &^= unix.OPOST
	raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	raw.Cflag &^= unix.CSIZE | unix.PARENB
	raw.Cflag |= unix.CS8
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(t.fd, unix.TCSETS, &raw); err != nil {
		return fmt.Errorf("terminal: %w", err)
	}
	t.saved = saved
	return nil
}

// Restore makes the terminal what it was before Raw.
func (t *Terminal) Restore() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.saved != nil {
		_ = unix.IoctlSetTermios(t.fd, unix.TCSETSW, t.saved) // a terminal that is gone needs it no more
		t.saved = nil
	}
}

// Size returns the terminal's rows and columns, or 24 and 80 where it does not know them.
func (t *Terminal) Size() (rows, cols uint16) {
	size, err := unix.IoctlGetWinsize(t.fd, unix.TIOCGWINSZ)
	if err != nil || size.Row == 0 || size.Col == 0 {
		return 24, 80
	}
	return size.Row, size.Col
}
