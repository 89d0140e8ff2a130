package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// A child is a process that we started and that we end.
type child struct {
	name   string
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout *bufio.Reader
	stderr bytes.Buffer // read once it has ended
	ended  chan struct{}
}

// spawn starts a process with its standard input and output on pipes. It is in a process group of its own,
// so that a terminal's ^C reaches us alone and we end everything in order.
func spawn(name, path string, args, env []string, dir string) (*child, error) {
	c := &child{name: name, cmd: exec.Command(path, args...), ended: make(chan struct{})}
	c.cmd.Env = append(os.Environ(), env...)
	c.cmd.Dir = dir
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.cmd.Stderr = &c.stderr
	var err error
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, w, err := os.Pipe() // not StdoutPipe, which Wait would close under a reader
	if err != nil {
		return nil, err
	}
	c.cmd.Stdout = w
	c.stdout = bufio.NewReader(out)
	err = c.cmd.Start()
	w.Close()
	if err != nil {
		out.Close()
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	go func() {
		_ = c.cmd.Wait()
		close(c.ended)
	}()
	return c, nil
}

// line reads a line of standard output, within a deadline.
func (c *child) line(ctx context.Context) (string, error) {
	defer context.AfterFunc(ctx, c.kill)()
	s, err := c.stdout.ReadString('\n')
	if err != nil {
		return "", c.failure(ctx, err)
	}
	return strings.TrimSpace(s), nil
}

// failure says what went wrong with c, by its own words if it has ended.
func (c *child) failure(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	select {
	case <-c.ended:
		if said := strings.TrimSpace(c.stderr.String()); said != "" {
			return fmt.Errorf("%s: %w: %s", c.name, err, said)
		}
	case <-time.After(time.Second):
	}
	return fmt.Errorf("%s: %w", c.name, err)
}

func (c *child) kill() { _ = c.cmd.Process.Kill() }

// stop ends c: by the end of its input, a signal, and at last by force.
func (c *child) stop() {
	const grace = 5 * time.Second
	c.stdin.Close()
	select {
	case <-c.ended:
		return
	case <-time.After(300 * time.Millisecond):
	}
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-c.ended:
	case <-time.After(grace):
		c.kill()
		<-c.ended
	}
}

// A loader is a load generator that runs, wherever it does.
type loader struct {
	*child
	commands *json.Encoder
	replies  *json.Decoder
}

func newLoader(c *child) *loader {
	return &loader{c, json.NewEncoder(c.stdin), json.NewDecoder(c.stdout)}
}

// commandTimeout bounds one command of a load generator.
const commandTimeout = time.Minute

// call has the load generator do c. What it says is wrong is an error.
func (l *loader) call(ctx context.Context, c command) (reply, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	defer context.AfterFunc(ctx, l.kill)()
	var r reply
	err := l.commands.Encode(c)
	if err == nil {
		err = l.replies.Decode(&r)
	}
	if err != nil {
		return reply{}, l.failure(ctx, fmt.Errorf("%s to %s: %w", c.Op, c.Target.Name, err))
	}
	if r.Error != "" {
		return r, fmt.Errorf("%s to %s: %w", c.Op, c.Target.Name, errors.New(r.Error))
	}
	return r, nil
}
