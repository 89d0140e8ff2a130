package pluginhost

import (
	"bytes"
	"context"
	"errors"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"torno.internal/broker/internal/confine"
)

// envSocketDir is the variable by which go-plugin says where a plugin is to listen.
const envSocketDir = "PLUGIN_UNIX_SOCKET_DIR"

// A runner is one process of a plugin, for go-plugin (runner.Runner).
type runner struct {
	name string
	spec confine.Spec

	process   *confine.Process
	inside    string // the socket's directory, as the plugin sees it
	stdout    *greeting
	stderr    io.ReadCloser
	output    *tail // of standard error
	flooded   chan struct{}
	flooding  sync.Once // closes flooded: the two ways on which a plugin writes have a meter each
	greetings handshake
	greetErr  error // why the first line is not a handshake; nil: it is, or has not come yet
	socket    string

	mu sync.Mutex // guards process while it starts, greetings, greetErr and socket
}

func newRunner(name string, spec confine.Spec, output *tail) *runner {
	return &runner{name: name, spec: spec, output: output, flooded: make(chan struct{})}
}

// Start implements runner.Runner.
func (r *runner) Start(context.Context) error {
	p, err := confine.Start(&r.spec)
	if err != nil {
		return err
	}
	r.mu.Lock()
	r.process = p
	r.mu.Unlock()
	r.inside = r.spec.Dir
	if p.Namespaces {
		r.inside = confine.InsideDir
	}
	flow := newMeter(outputRate, outputBurst, r.flood)
	r.stdout = &greeting{r: r, from: metered{p.Stdout, flow, &tail{}}}
	r.stderr = metered{p.Stderr, flow, r.output}
	return nil
}

// flood ends a plugin that writes too much.
func (r *runner) flood() {
	r.flooding.Do(func() { close(r.flooded) })
	r.process.Kill()
}

// Wait implements runner.Runner.
func (r *runner) Wait(context.Context) error {
	<-r.process.Done()
	return nil
}

// Kill implements runner.Runner.
func (r *runner) Kill(context.Context) error {
	r.mu.Lock()
	p := r.process
	r.mu.Unlock()
	if p != nil {
		p.Kill()
	}
	return nil
}

// Stdout implements runner.Runner: what it returns reads the handshake, once it has been checked, and nothing else.
func (r *runner) Stdout() io.ReadCloser { return r.stdout }

// Stderr implements runner.Runner.
func (r *runner) Stderr() io.ReadCloser { return r.stderr }

// Name implements runner.Runner.
func (r *runner) Name() string { return r.name }

// ID implements runner.Runner.
func (r *runner) ID() string {
	if r.process == nil {
		return ""
	}
	return strconv.Itoa(r.process.PID())
}

// Diagnose implements runner.Runner.
func (r *runner) Diagnose(context.Context) string { return "" }

// PluginToHost implements runner.Runner.
func (r *runner) PluginToHost(network, address string) (string, string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if network != "unix" || address != r.greetings.path || r.socket == "" {
		return "", "", errNotAPlugin
	}
	return network, r.socket, nil
}

// HostToPlugin implements runner.Runner: nothing of the host's is offered to plugins.
func (r *runner) HostToPlugin(string, string) (string, string, error) {
	return "", "", errors.New("plugins call nobody")
}

// greet checks the handshake.
func (r *runner) greet(line []byte) error {
	h, err := parseHandshake(line)
	name := ""
	if err == nil {
		name, err = h.socketName(r.inside)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.greetings, r.greetErr = h, err
	if err == nil {
		r.socket = filepath.Join(r.spec.Dir, name)
	}
	return err
}

// greeted returns what the handshake was, and what was wrong with it.
func (r *runner) greeted() (handshake, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.greetings, r.greetErr
}

// A greeting reads as the handshake, if what the plugin writes first is one; all that follows is counted and dropped.
type greeting struct {
	r    *runner
	from metered
	line *bytes.Reader
}

func (g *greeting) Read(b []byte) (int, error) {
	if g.line == nil {
		line, err := readHandshake(g.from)
		if err == nil {
			err = g.r.greet(line)
		} else if errors.Is(err, errNotAPlugin) {
			_ = g.r.greet(nil)
		}
		if err != nil {
			return 0, io.EOF
		}
		g.line = bytes.NewReader(append(line, '\n'))
	}
	if g.line.Len() > 0 {
		return g.line.Read(b)
	}
	_, _ = io.Copy(io.Discard, g.from)
	return 0, io.EOF
}

func (g *greeting) Close() error { return g.from.Close() }

// adopt takes over the environment that go-plugin has made for the plugin.
func (r *runner) adopt(env []string, dir string) {
	for _, kv := range env {
		if !strings.HasPrefix(kv, envSocketDir+"=") {
			r.spec.Env = append(r.spec.Env, kv)
		}
	}
	r.spec.Dir, r.spec.DirEnv = dir, envSocketDir
}
