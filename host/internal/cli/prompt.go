package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// Keys that a question understands. The terminal's own line editing stops at 4,095 bytes and its ^C
// would leave the echo off, so neither is used.
const (
	keyInterrupt = 0x03 // ^C
	keyEnd       = 0x04 // ^D
	keyBackspace = 0x08
	keyKill      = 0x15 // ^U
	keyDelete    = 0x7f
)

// pollInterval is how often, in milliseconds, a question looks whether the command has been ended.
const pollInterval = 100

var errNotAnswered = errors.New("not answered")

// ask asks a question on the terminal and returns the line that answers it.
func ask(cmd *cobra.Command, question string) (string, error) {
	line, err := readLine(cmd, question, true)
	defer line.Wipe()
	return strings.TrimSpace(string(line.AppendTo(nil))), err
}

// agreed asks a question on the terminal that yes or no answers.
func agreed(cmd *cobra.Command, question string) (bool, error) {
	answer, err := ask(cmd, question)
	a := strings.ToLower(answer)
	return err == nil && (a == "y" || a == "yes"), err
}

// promptTwice asks for a value without showing it, and again to catch a slip.
func promptTwice(cmd *cobra.Command, key string) (secret.Value, error) {
	if !isTerminal(os.Stdin) {
		return secret.Value{}, &hintError{errors.New("no terminal to ask on"), key + "=- reads the value from standard input"}
	}
	first, err := readLine(cmd, key+" (not shown): ", false)
	if err != nil {
		return first, err
	}
	second, err := readLine(cmd, key+" again: ", false)
	defer second.Wipe()
	if err != nil {
		first.Wipe()
		return secret.Value{}, err
	}
	same := false
	_ = first.Use(func(a []byte) error {
		return second.Use(func(b []byte) error { same = bytes.Equal(a, b); return nil })
	})
	if !same {
		first.Wipe()
		return secret.Value{}, errors.New("the two differ; nothing was set")
	}
	return first, nil
}

// readLine asks and reads one line of at most control.MaxValue bytes from the terminal that is standard
// input, which is as it was when it returns.
func readLine(cmd *cobra.Command, question string, echo bool) (secret.Value, error) {
	fd := int(os.Stdin.Fd())
	old, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return secret.Value{}, err
	}
	keys := *old
	keys.Lflag &^= unix.ECHO | unix.ICANON | unix.ISIG | unix.IEXTEN
	keys.Iflag |= unix.ICRNL
	keys.Cc[unix.VMIN], keys.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &keys); err != nil {
		return secret.Value{}, err
	}
	defer func() { _ = unix.IoctlSetTermios(fd, unix.TCSETSW, old) }()
	out := cmd.ErrOrStderr()
	fmt.Fprint(out, question)
	l := line{}
	for {
		c, err := readKey(cmd.Context(), fd)
		if err != nil {
			l.wipe()
			fmt.Fprintln(out)
			return secret.Value{}, err
		}
		shown, done, err := l.key(c)
		if echo {
			fmt.Fprint(out, shown)
		}
		if err != nil || done {
			fmt.Fprintln(out)
		}
		if err != nil {
			l.wipe()
			return secret.Value{}, err
		}
		if done {
			return secret.New(l.text), nil
		}
	}
}

// readKey waits for one byte from the terminal or for the command's end.
func readKey(ctx context.Context, fd int) (byte, error) {
	for {
		if ctx.Err() != nil {
			return 0, errNotAnswered
		}
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, pollInterval)
		if err != nil && err != unix.EINTR {
			return 0, err
		}
		if n <= 0 {
			continue
		}
		var one [1]byte
		n, err = unix.Read(fd, one[:])
		switch {
		case err == unix.EINTR || err == unix.EAGAIN:
			continue
		case err != nil:
			return 0, err
		case n == 0:
			return 0, errNotAnswered
		}
		return one[0], nil
	}
}

// A line is what has been typed so far.
type line struct{ text []byte }

// key takes one byte. It returns what to show for it, and whether the line is complete.
func (l *line) key(c byte) (shown string, done bool, err error) {
	switch c {
	case '\r', '\n':
		return "", true, nil
	case keyInterrupt:
		return "", false, errNotAnswered
	case keyEnd:
		if len(l.text) > 0 {
			return "", true, nil
		}
		return "", false, errNotAnswered
	case keyBackspace, keyDelete:
		if len(l.text) == 0 {
			return "", false, nil
		}
		_, size := utf8.DecodeLastRune(l.text)
		clear(l.text[len(l.text)-size:])
		l.text = l.text[:len(l.text)-size]
		return "\b \b", false, nil
	case keyKill:
		shown = strings.Repeat("\b \b", utf8.RuneCount(l.text))
		clear(l.text)
		l.text = l.text[:0]
		return shown, false, nil
	}
	if len(l.text) == control.MaxValue {
		return "", false, fmt.Errorf("more than %d bytes", control.MaxValue)
	}
	l.grow()
	l.text = append(l.text, c)
	if c < ' ' {
		return "", false, nil
	}
	return string([]byte{c}), false, nil
}

// grow makes room for one byte without leaving a copy behind.
func (l *line) grow() {
	if len(l.text) < cap(l.text) {
		return
	}
	larger := make([]byte, len(l.text), max(256, 2*cap(l.text)))
	copy(larger, l.text)
	l.wipe()
	l.text = larger
}

func (l *line) wipe() { secret.Wipe(l.text) }
