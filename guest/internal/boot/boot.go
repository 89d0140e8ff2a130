// Package boot brings the guest from its first instruction to a running workload and back down: one
// table of steps, each of which must succeed, or the workload never starts.
package boot

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"torno.internal/guest/internal/capture"
	"torno.internal/guest/internal/names"
	"torno.internal/guest/internal/relay"
	"torno.internal/guest/internal/workload"
	"torno.internal/guest/internal/workspace"
	"torno.internal/protocol"
	"torno.internal/protocol/transport"
)

// A Config says whom the guest talks to.
type Config struct {
	Broker  transport.Addr
	Run     transport.Addr // zero: no run channel, stdio is the console
	Words   Words          // of the kernel command line, where it is ours
	UID     uint32         // attached: the workload's user, whose connections alone are caught where there is a network card
	Version string         // of the build, for people
	Log     *slog.Logger
}

// Deadlines.
const (
	bootTimeout     = 30 * time.Second // everything before the workload starts
	shutdownTimeout = 3 * time.Second  // for the services, once it has ended
)

// A guest is what the steps work on, and what they leave for those after them.
type guest struct {
	Config
	initial  bool                    // we are in the machine's first namespaces
	attached bool                    // the machine has an init of its own
	kept     *protocol.HelloResponse // attached: of the session that goes on
	bootFile string                  // boot nonce of the initial file system, if there is one
	hello    *protocol.HelloResponse
	plan     capture.Plan
	caught   *capture.Listener
	table    *names.Table
	pool     *relay.Pool
	channel  *relay.Channel
	trust    []string // variables for the workload
	proxy    string   // explicit proxy's URL
	cards    []string // network cards that lead past us
	run      *workload.Channel
	cgroup   *os.File // the workload's; nil: none of its own
	scratch  *os.File // root of the file system that takes what is written; nil: the root itself
	drift    drift    // of the clock; the events' alone
	shutdown context.CancelFunc

	upper     *os.Root             // the same, for the workspace and its notes
	workspace *workspace.Workspace // nil: none

	background context.Context // of the services below; ends after the workload
	services   sync.WaitGroup
}

// Run boots, runs the workload and returns the exit status of torno-guest, which is the workload's.
// Where the guest owns the machine it does not return but powers off.
func Run(ctx context.Context, c Config) int {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH)
	defer signal.Stop(signals)

	ctx, shutdown := context.WithCancel(ctx)
	defer shutdown()
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	g := &guest{Config: c, initial: inInitialNamespaces(), shutdown: shutdown, background: background}
	g.over("init")
	run := g.bootAndRun
	if c.Words.Recover {
		run = func(ctx context.Context, _ <-chan os.Signal) protocol.Exit { return g.recover(ctx) }
	}
	exit := run(ctx, signals)
	stop()
	g.waitForServices()
	if g.initial { // the first process of a machine has nowhere to return to
		powerOff(g.Log)
	}
	return exit.Code
}

// waitForServices waits for the services, but not for ever: process 1 must come to its end.
func (g *guest) waitForServices() {
	ended := make(chan struct{})
	go func() { g.services.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(shutdownTimeout):
		g.Log.Warn("services do not end")
	}
}

func (g *guest) bootAndRun(ctx context.Context, signals <-chan os.Signal) protocol.Exit {
	if err := g.boot(ctx, beforeHello, fromHello); err != nil {
		exit := g.complain(err)
		if g.run != nil {
			if err := g.run.SendExit(ctx, exit); err != nil {
				g.Log.Error("telling the host", "error", err)
			}
		}
		return exit
	}
	exit := workload.Run(ctx, workload.Config{
		Workload: g.hello.Workload, Env: g.hello.Env, Trust: g.trust, Proxy: g.proxy,
		Channel: g.run, Signals: signals, PID1: os.Getpid() == 1, Cgroup: g.cgroup, Explain: g.explain, Log: g.Log,
		Started:   func() { g.over("workload") },
		Workspace: g.workspace,
	})
	if exit.Error != "" && g.run == nil {
		fmt.Fprintf(os.Stderr, "torno-guest: %s\n", exit.Error)
		if exit.Hint != "" {
			fmt.Fprintf(os.Stderr, "hint: %s\n", exit.Hint)
		}
	}
	return exit
}

// complain says why there is no workload. Without a run channel that is the last word on the console.
func (g *guest) complain(err error) protocol.Exit {
	exit := protocol.Exit{Code: protocol.ExitFailed, Error: "boot: " + err.Error()}
	var hint *capture.HintError
	if errors.As(err, &hint) {
		exit.Hint = hint.Hint
	}
	g.Log.Error("boot", "error", err, "hint", exit.Hint)
	if g.run == nil {
		fmt.Fprintf(os.Stderr, "torno-guest: %s\n", exit.Error)
		if exit.Hint != "" {
			fmt.Fprintf(os.Stderr, "hint: %s\n", exit.Hint)
		}
	}
	return exit
}

// boot takes every step of two tables, in order, each within bootTimeout. Between them it waits, where that
// is wanted, for as long as nobody has made a session for this machine.
func (g *guest) boot(ctx context.Context, before, after []step) error {
	if err := g.take(ctx, before); err != nil {
		return err
	}
	if g.Words.Wait && g.kept == nil {
		g.Log.Info("waiting for a session; a snapshot may be taken now")
		if err := relay.Await(ctx, g.dialBroker); err != nil {
			return fmt.Errorf("waiting for a session: %w", err)
		}
	}
	return g.take(ctx, after)
}

// take takes every step of a table, in order, within bootTimeout.
func (g *guest) take(ctx context.Context, steps []step) error {
	ctx, cancel := context.WithTimeout(ctx, bootTimeout)
	defer cancel()
	for _, s := range steps {
		if !g.has(s.needs) {
			g.Log.Debug("boot: skipped", "step", s.name, "needs", s.needs)
			continue
		}
		began := time.Now()
		if err := s.run(g, ctx); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		g.Log.Debug("boot", "step", s.name, "took", time.Since(began))
		g.over(s.name)
	}
	return nil
}

// over says that a phase is over, where somebody wants to know: the host, which has the only clock that
// runs all the time, takes the times.
func (g *guest) over(phase string) {
	if g.Words.Timings {
		fmt.Fprintf(os.Stderr, "torno-guest: phase over: %s\n", phase)
	}
}

// serve runs f until the workload has ended. A service that fails before stops the workload: without
// it the capture would have a hole, or nobody behind it.
func (g *guest) serve(name string, f func(context.Context) error) {
	g.services.Go(func() {
		err := f(g.background)
		if err != nil && g.background.Err() == nil {
			g.Log.Error("service ended", "service", name, "error", err)
			g.shutdown()
		}
	})
}

func (g *guest) dialBroker(ctx context.Context) (net.Conn, error) {
	return transport.Dial(ctx, g.Broker)
}

func (g *guest) dialRun(ctx context.Context) (net.Conn, error) { return transport.Dial(ctx, g.Run) }
