// Package workload starts the workload as its user, under its system call filter, with an environment
// built from nothing, carries its standard streams over the run channel, and says how it ended.
package workload

import (
	"context"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"torno.internal/guest/internal/workspace"
	"torno.internal/protocol"
)

// A Config says what to run and where its standard streams lead.
type Config struct {
	Workload protocol.Workload
	Env      []string             // hello's: exposed secrets and placeholders
	Trust    []string             // variables that name the session's CA
	Proxy    string               // explicit proxy's URL, for TORNO_PROXY; empty: none
	Channel  *Channel             // nil: stdio is the console
	Signals  <-chan os.Signal     // passed on to the workload; may be nil
	PID1     bool                 // we are process 1 of our namespace
	Cgroup   *os.File             // directory of the cgroup that it runs in; nil: ours
	Started  func()               // called once it has executed; may be nil
	Explain  func(*protocol.Exit) // adds to how it ended what is known of it; may be nil
	Log      *slog.Logger

	Workspace *workspace.Workspace // filled over the channel before, and sent back after; nil: none
}

// Deadlines at the end of a run.
const (
	stopGrace   = 5 * time.Second  // between TERM and KILL
	exitTimeout = 10 * time.Second // to tell the host how it ended
	copyBuffer  = 32 << 10         // bytes
)

// Run starts the workload and waits for its end. When ctx is done the workload gets TERM, and KILL
// after a grace period. The Exit is sent over the run channel, if there is one, after everything that
// the workload wrote has been taken by the host.
func Run(ctx context.Context, c Config) protocol.Exit {
	if c.Channel == nil {
		files := [3]*os.File{os.Stdin, os.Stdout, os.Stderr}
		p, exit := start(c.spec(), files, false, c.PID1, c.Cgroup)
		if p == nil {
			return exit
		}
		return c.supervise(ctx, p)
	}
	exit := c.runInWorkspace(ctx)
	if c.Explain != nil {
		c.Explain(&exit)
	}
	if err := c.Channel.SendExit(ctx, exit); err != nil {
		c.Log.Error("telling the host how the workload ended", "error", err)
	}
	return exit
}

func (c Config) spec() spec {
	w := c.Workload
	if w.User == "" {
		w.User = protocol.UserAgent
	}
	var proxy []string
	if c.Proxy != "" {
		proxy = []string{"TORNO_PROXY=" + c.Proxy}
	}
	return spec{
		Argv: w.Argv, Dir: w.Dir, Home: Home(w.User), User: w.User,
		Env: environment(w.User, Shell(), w.Env, c.Env, c.Trust, proxy),
	}
}

// supervise waits for p, passing signals on, and stops it when ctx is done.
func (c Config) supervise(ctx context.Context, p *process) protocol.Exit {
	ended := make(chan protocol.Exit, 1)
	go func() { ended <- p.wait() }()
	done := ctx.Done()
	var kill <-chan time.Time
	for {
		select {
		case exit := <-ended:
			return exit
		case sig := <-c.Signals:
			if s, ok := sig.(unix.Signal); ok {
				p.signal(s)
			}
		case <-done:
			p.signal(unix.SIGTERM)
			p.signal(unix.SIGCONT) // a stopped process could not act on it
			done, kill = nil, time.After(stopGrace)
		case <-kill:
			p.kill()
		}
	}
}

// An attachment is the run channel's streams of one run.
type attachment struct {
	stdin, stdout, stderr, events *stream // stderr is nil with a terminal
}

func (c Config) runAttached(ctx context.Context) protocol.Exit {
	a, err := c.attach(ctx)
	if err != nil {
		return failure(err, "torno run on the host must stay until the workload ends")
	}
	defer a.close()
	open := func() (*stdio, error) { return openPipes(OwnerOf(c.Workload.User)) }
	if w := c.Workload; w.TTY {
		open = func() (*stdio, error) { return openTerminal(OwnerOf(w.User), w.Rows, w.Cols) }
	}
	files, err := open()
	if err != nil {
		return failure(err, "")
	}
	defer files.closeAll()
	p, exit := start(c.spec(), files.child, c.Workload.TTY, c.PID1, c.Cgroup)
	files.closeChild()
	if p == nil {
		return exit
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	return c.carry(ctx, stop, p, a, files)
}

// carry moves the bytes until the workload has ended and all that it wrote is taken.
func (c Config) carry(ctx context.Context, stop func(), p *process, a *attachment, files *stdio) protocol.Exit {
	if c.Started != nil {
		c.Started()
	}
	var in, out sync.WaitGroup
	in.Go(func() {
		c.feed(a.stdin, files.stdin, stop)
	})
	in.Go(func() {
		if err := readEvents(a.events, func(e protocol.RunEvent) { c.handle(ctx, e, p, files, stop) }); err != nil {
			c.Log.Debug("events ended", "error", err)
			stop() // the host is gone
		}
	})
	out.Go(func() { c.drain(a.stdout, files.stdout) })
	if files.stderr != nil {
		out.Go(func() { c.drain(a.stderr, files.stderr) })
	}
	exit := c.supervise(ctx, p)
	if ctx.Err() != nil { // a host that said stop, or went, may not be reading
		late := time.AfterFunc(exitTimeout, a.close)
		defer late.Stop()
	}
	out.Wait()
	a.stdin.Close()
	a.events.Close()
	files.closeAll() // ends a write that the workload will never read
	in.Wait()
	return exit
}

func (c Config) attach(ctx context.Context) (*attachment, error) {
	var a attachment
	var err error
	if a.events, err = c.Channel.get(ctx, protocol.PathRunEvents); err == nil {
		if a.stdin, err = c.Channel.get(ctx, protocol.PathStdin); err == nil {
			a.stdout, err = c.Channel.post(ctx, protocol.PathStdout)
		}
	}
	if err == nil && !c.Workload.TTY {
		a.stderr, err = c.Channel.post(ctx, protocol.PathStderr)
	}
	if err != nil {
		a.close()
		return nil, err
	}
	return &a, nil
}

func (a *attachment) close() {
	for _, s := range []*stream{a.stdin, a.stdout, a.stderr, a.events} {
		if s != nil {
			s.Close()
		}
	}
}

// feed copies standard input. Only its clean end is end of file for the workload; a host that went
// away stops it.
func (c Config) feed(from *stream, to io.WriteCloser, stop func()) {
	buf := make([]byte, copyBuffer)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return // the workload reads no more
			}
		}
		if err == io.EOF {
			to.Close()
			return
		}
		if err != nil {
			c.Log.Debug("standard input broke off", "error", err)
			stop()
			return
		}
	}
}

// drain copies an output to its end and waits until the host has it. If the host is gone it reads on,
// so that the workload can end.
func (c Config) drain(to *stream, from *os.File) {
	buf := make([]byte, copyBuffer)
	_, err := io.CopyBuffer(onlyWriter{to}, onlyReader{output{from}}, buf)
	if err == nil {
		err = to.finish()
	}
	if err != nil {
		c.Log.Debug("output broke off", "error", err)
		_, _ = io.CopyBuffer(onlyWriter{io.Discard}, onlyReader{output{from}}, buf)
	}
}

// onlyReader and onlyWriter keep io.Copy from methods that would go around output.Read.
type (
	onlyReader struct{ io.Reader }
	onlyWriter struct{ io.Writer }
)

// handle acts on one event from the host.
func (c Config) handle(ctx context.Context, e protocol.RunEvent, p *process, files *stdio, stop func()) {
	switch e.Type {
	case protocol.RunSignal:
		if sig, ok := signals[e.Signal]; ok {
			p.signal(sig)
		}
	case protocol.RunWinsize:
		files.resize(e.Rows, e.Cols)
	case protocol.RunStop:
		stop()
	case protocol.RunConnect:
		go func() { // ends with the workload, whose server it leads to, or with the channel
			if err := c.Channel.publish(ctx, e.Port, e.Number); err != nil {
				c.Log.Debug("published port", "port", e.Port, "error", err)
			}
		}()
	}
}
