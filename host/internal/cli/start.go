package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"torno.internal/broker"
	"torno.internal/host/internal/awake"
)

const (
	brokerWait  = 15 * time.Second       // for a broker that was just started to answer
	patience    = 700 * time.Millisecond // after which a person is told what we wait for
	maxServeLog = 1 << 20                // bytes; a longer log is put aside
)

// ensure returns a client of a broker that answers, starting one in the background if none does. It ends
// by itself ten minutes after its last session.
func ensure(ctx context.Context) (*client, error) {
	c, err := connect()
	if err != nil {
		return nil, err
	}
	if _, err := c.health(ctx); !errors.Is(err, errNoBroker) {
		return c, err
	}
	return c, c.start(ctx)
}

// start starts a broker and waits until it answers.
func (c *client) start(ctx context.Context) error {
	log, err := openServeLog()
	if err != nil {
		return err
	}
	defer log.Close()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, "serve", "--idle-exit", "10m")
	passphrase, err := passphraseForStart(ctx)
	if err != nil {
		return err
	}
	defer passphrase.Close()
	if passphrase != nil {
		cmd.Args = append(cmd.Args, "--passphrase-fd", "3")
		cmd.ExtraFiles = []*os.File{passphrase}
	}
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, "/"
	cmd.Env, err = serveEnv()
	if err != nil {
		return err
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting torno serve: %w", err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }() // ends with the broker or with us
	deadline, slow := time.After(brokerWait), time.After(patience)
	hint := "its log says why: " + log.Name()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ended:
			if _, err := c.health(ctx); err == nil {
				return nil // another torno started one at the same time
			}
			why, itsHint := lastWords(log.Name())
			return &hintError{fmt.Errorf("torno serve ended at once: %s", why), cmp.Or(itsHint, hint)}
		case <-deadline:
			return &hintError{fmt.Errorf("torno serve does not answer within %v", brokerWait), hint}
		case <-slow:
			if isTerminal(os.Stderr) {
				fmt.Fprintln(os.Stderr, "torno: waiting for the broker to start")
			}
		case <-time.After(20 * time.Millisecond):
			if _, err := c.health(ctx); !errors.Is(err, errNoBroker) {
				return err
			}
		}
	}
}

// passphraseForStart asks for the passphrase of the key, where one protects it, and returns what the broker
// reads it from; nil: it needs none.
func passphraseForStart(ctx context.Context) (*os.File, error) {
	state, err := stateDir()
	if err != nil {
		return nil, err
	}
	protected, err := broker.KeyProtection(state)
	if err != nil || protected != broker.ProtectedByPassphrase {
		return nil, nil // what is wrong with the file the broker says better
	}
	if !isTerminal(os.Stdin) {
		return nil, &hintError{errors.New("no broker runs, and a passphrase protects its key"), "run torno serve on a terminal first, or torno serve --passphrase-fd 0 <file"}
	}
	ask := &cobra.Command{}
	ask.SetContext(ctx)
	s, err := readLine(ask, passphraseQuestion, false)
	if err != nil {
		return nil, err
	}
	defer s.Wipe()
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	// It is shorter than what a pipe holds.
	if err := errors.Join(s.Use(func(b []byte) error { _, err := w.Write(b); return err }), w.Close()); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// serveEnv is our environment with the places made absolute: the broker starts in another directory.
func serveEnv() ([]string, error) {
	state, err := stateDir()
	if err != nil {
		return nil, err
	}
	return append(awake.Environ(os.Environ()), "TORNO_STATE="+state), nil
}

// openServeLog opens the log of a broker that torno starts itself.
func openServeLog() (*os.File, error) {
	state, err := stateDir()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(state, 0o700); err != nil {
		return nil, err
	}
	path := filepath.Join(state, "serve.log")
	if info, err := os.Lstat(path); err == nil && info.Size() > maxServeLog {
		if err := os.Rename(path, path+".old"); err != nil {
			return nil, err
		}
	}
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND|syscall.O_NOFOLLOW, 0o600)
}

// lastWords returns the error that a broker ended with and the hint that goes with it, by its log.
func lastWords(path string) (why, hint string) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", ""
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	last := len(lines) - 1
	if h, ok := strings.CutPrefix(lines[last], "hint: "); ok && last > 0 {
		hint, last = h, last-1
	}
	return strings.TrimPrefix(lines[last], "torno: "), hint
}
