package keyring

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// Command is a Holder whose secret is what a command prints: a TPM's tool, a password manager. The command is no shell's:
// its words are given to it as they are. What it says on standard error is part of the error where it fails, at most
// maxSaid bytes of it, escaped and without the secret, and nothing otherwise.
type Command struct{ Argv []string }

// Bounds on a command.
var commandTimeout = time.Minute // a person may have to touch a token; tests have less

const maxSaid = 1 << 10 // bytes

// Kind implements Holder.
func (Command) Kind() Kind { return KindCommand }

// Secret implements Holder.
func (c Command) Secret() (secret.Value, error) {
	if len(c.Argv) == 0 || !filepath.IsAbs(c.Argv[0]) {
		return secret.Value{}, errors.New("the command that holds the key has no absolute path")
	}
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.Argv[0], c.Argv[1:]...)
	said := &said{}
	cmd.Stderr = said
	cmd.WaitDelay = time.Second
	out, err := cmd.StdoutPipe()
	if err != nil {
		return secret.Value{}, err
	}
	if err := cmd.Start(); err != nil {
		return secret.Value{}, err
	}
	stop := context.AfterFunc(ctx, func() { _ = out.Close() }) // what it has left behind may hold its end open
	s, readErr := ReadSecret(out)
	_, _ = io.Copy(io.Discard, out)
	stop()
	err = cmd.Wait()
	if ctx.Err() != nil {
		err = fmt.Errorf("it did not end within %v", commandTimeout)
	}
	if err == nil {
		err = readErr
	}
	if err != nil {
		err = fmt.Errorf("%s: %w%s", c.Argv[0], err, said.without(s))
		s.Wipe()
		return secret.Value{}, err
	}
	return s, nil
}

// A said keeps the beginning of what a command says on standard error.
type said struct{ b []byte }

func (w *said) Write(p []byte) (int, error) {
	w.b = append(w.b, p[:min(len(p), maxSaid-len(w.b))]...)
	return len(p), nil
}

// without returns what was said, for people, unless the secret or a part of it stands in it.
func (w *said) without(s secret.Value) string {
	defer clear(w.b)
	text := strings.TrimSpace(string(w.b))
	if text == "" {
		return ""
	}
	leaks := false
	_ = s.Use(func(b []byte) error {
		for i := 0; i+partSize <= len(b) && !leaks; i++ {
			leaks = bytes.Contains(w.b, b[i:i+partSize])
		}
		return nil
	})
	if leaks {
		return " (what it said held the secret)"
	}
	return ": " + control.Escape(text)
}

// partSize is how many bytes of a secret in a row are too many to be shown.
const partSize = 8
