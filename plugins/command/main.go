// Command torno-plugin-command is a source of secrets that programs print: a password manager's, such as op and pass, or
// "gh auth token". Which programs, and with which arguments, is the operator's to say; a reference names one of them.
//
//	[plugins.command.config.commands]
//	github = ["/usr/bin/gh", "auth", "token"]
//	op     = ["/usr/bin/op", "read", "op://{}"]      # command:op/Private/GitHub/token
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"torno.internal/broker/plugin"
)

func main() { plugin.Serve(&source{}) }

// hole is where an argument has the rest of a reference.
const hole = "{}"

// grace is how long a program may take to end once it was killed.
const grace = time.Second

type source struct{ commands map[string][]string }

// Configure implements plugin.Configurer.
func (s *source) Configure(_ context.Context, c plugin.Config) error {
	var config struct {
		Commands map[string][]string `json:"commands"`
	}
	if err := c.Decode(&config); err != nil {
		return err
	}
	for name, argv := range config.Commands {
		if strings.Contains(name, "/") || len(argv) == 0 || !filepath.IsAbs(argv[0]) || strings.Contains(argv[0], hole) {
			return fmt.Errorf("%w: the command %q does not begin with an absolute path", plugin.ErrInvalid, name)
		}
	}
	s.commands = config.Commands
	return nil
}

// Fetch implements plugin.Source: NAME, or NAME/REST where the command has a place for it.
func (s *source) Fetch(ctx context.Context, ref string) (plugin.Secret, error) {
	argv, err := s.argv(ref)
	if err != nil {
		return plugin.Secret{}, err
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = environ()
	cmd.Dir = "/"
	cmd.Stderr = os.Stderr
	cmd.WaitDelay = grace
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) } // with all that it has started
	out, err := cmd.StdoutPipe()
	if err != nil {
		return plugin.Secret{}, err
	}
	if err := cmd.Start(); err != nil {
		return plugin.Secret{}, fmt.Errorf("%w: %w", plugin.ErrUnavailable, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = out.Close() }) // what it has left behind may hold its end open
	value, readErr := io.ReadAll(io.LimitReader(out, plugin.MaxValue+3))
	stop()
	if len(value) > plugin.MaxValue+2 {
		_ = cmd.Cancel()
	}
	waitErr := cmd.Wait()
	switch {
	case ctx.Err() != nil:
		err = ctx.Err()
	case len(value) > plugin.MaxValue+2:
		err = errors.New("the program prints more than a secret")
	default:
		err = errors.Join(readErr, waitErr)
	}
	if err != nil {
		clear(value)
		return plugin.Secret{}, err
	}
	return plugin.Secret{Value: bytes.TrimSuffix(bytes.TrimSuffix(value, []byte("\n")), []byte("\r"))}, nil
}

// argv returns what a reference means.
func (s *source) argv(ref string) ([]string, error) {
	name, rest, more := strings.Cut(ref, "/")
	template, ok := s.commands[name]
	if !ok {
		return nil, fmt.Errorf("%w: no command %q", plugin.ErrNotFound, name)
	}
	takes := slices.ContainsFunc(template, func(arg string) bool { return strings.Contains(arg, hole) })
	if takes != more {
		return nil, fmt.Errorf("%w: the command %q takes a rest: %v", plugin.ErrInvalid, name, takes)
	}
	if more && !plain(rest) {
		return nil, fmt.Errorf("%w: a rest is letters, digits and ._@+=:- in segments", plugin.ErrInvalid)
	}
	argv := slices.Clone(template)
	for i := range argv {
		argv[i] = strings.ReplaceAll(argv[i], hole, rest)
	}
	return argv, nil
}

// plain reports whether a rest is segments that no program takes for anything but a name.
func plain(rest string) bool {
	for segment := range strings.SplitSeq(rest, "/") {
		if segment == "" || segment[0] == '-' || segment[0] == '.' || strings.ContainsFunc(segment, func(r rune) bool {
			return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("._@+=:- ", r))
		}) {
			return false
		}
	}
	return true
}

// environ is the environment that the operator gave us, without what go-plugin added.
func environ() []string {
	return slices.DeleteFunc(os.Environ(), func(kv string) bool {
		return strings.HasPrefix(kv, "PLUGIN_") || strings.HasPrefix(kv, plugin.Handshake.MagicCookieKey+"=")
	})
}
