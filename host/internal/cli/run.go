package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"torno.internal/host/internal/config"
	"torno.internal/host/internal/namespace"
	"torno.internal/host/internal/run"
	"torno.internal/protocol"
	"torno.internal/protocol/control"
	"torno.internal/protocol/transport"
)

// A launch is one torno run.
type launch struct {
	agent       string
	isolation   string
	trustConfig bool
	mounts      []string
	guest       string
	argv        []string
	log         *slog.Logger
}

func newRunCommand() *cobra.Command {
	l := launch{}
	cmd := &cobra.Command{
		Use:   "run --agent NAME [--isolation namespace] -- CMD…",
		Short: "Run a command with an agent's credentials out of its reach",
		Long: `Run a command with an agent's credentials out of its reach.

The command runs in namespaces of its own, as user "agent", with no network
device but lo. Everything that it dials is captured and sent by the broker,
which adds the credential where one is bound to the host. The command needs no
key, no proxy setting and no change.

It sees the programs of this machine and the working directory, both read-only,
and a home directory of its own that is gone afterwards. --mount-ro shows it
more. Home directories, torno's state and other processes are not there.

If the working directory has a torno.toml, it must be trusted ("torno trust"):
on a terminal torno shows it and asks. Without one all of the agent's secrets
are in use and nothing but the hosts that they are bound to can be reached.

On a terminal the command gets one; ~. after Enter ends it. Otherwise the first
^C is passed on and the second ends it at once.

Exit status: the command's own, 128+n if signal n ended it, 126 if it can't be
executed, 127 if it isn't there, 125 if torno itself failed.`,
		Example: `  torno run --agent my-agent --isolation namespace -- python3 agent.py
  torno run --agent my-agent --isolation namespace --mount-ro ~/tools -- bash`,
		Args:               cobra.ArbitraryArgs,
		DisableFlagParsing: false,
		RunE: func(cmd *cobra.Command, args []string) error {
			l.argv = args
			l.log = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn}))
			return l.run(cmd)
		},
	}
	f := cmd.Flags()
	f.SetInterspersed(false)
	f.StringVar(&l.agent, "agent", "", "whose secrets and policy (required)")
	f.StringVar(&l.isolation, "isolation", string(protocol.IsolationNamespace), "what stands between the command and this machine: namespace")
	f.BoolVar(&l.trustConfig, "trust-config", false, "approve torno.toml as it stands now, without asking")
	f.StringArrayVar(&l.mounts, "mount-ro", nil, "`directory` to show to the command, read-only, at its own path (repeat for more)")
	f.StringVar(&l.guest, "guest", "", "torno-guest (default: beside torno, or in PATH)")
	_ = cmd.RegisterFlagCompletionFunc("agent", completeAgents)
	return cmd
}

// run is the command: whatever fails before the workload starts exits with 125, wrong usage with 2.
func (l *launch) run(cmd *cobra.Command) error {
	switch {
	case !control.ValidAgent(l.agent):
		return usageError{&hintError{fmt.Errorf("--agent %q is not an agent's name", l.agent), "torno run --agent NAME -- CMD; a name is " + control.AgentGrammar}}
	case len(l.argv) == 0:
		return usageError{&hintError{errors.New("no command"), "torno run --agent " + l.agent + " -- CMD"}}
	case l.isolation == string(protocol.IsolationMicroVM):
		return usageError{&hintError{errors.New("--isolation microvm is not in this version"), "--isolation namespace"}}
	case l.isolation != string(protocol.IsolationNamespace):
		return usageError{&hintError{fmt.Errorf("--isolation %q is unknown", l.isolation), "--isolation namespace"}}
	}
	exit, err := l.launch(cmd)
	if err != nil {
		return &exitError{err, protocol.ExitFailed}
	}
	if exit.Error != "" {
		return &exitError{&hintError{errors.New(exit.Error), exit.Hint}, exit.Code}
	}
	if exit.Code != 0 {
		return &exitError{nil, exit.Code}
	}
	return nil
}

// launch registers the session, starts the guest, serves its run channel and ends the session.
func (l *launch) launch(cmd *cobra.Command) (protocol.Exit, error) {
	ctx := context.WithoutCancel(cmd.Context()) // ^C is the workload's
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, run.Signals...)
	defer signal.Stop(signals)

	c, err := ensure(cmd.Context())
	if err != nil {
		return protocol.Exit{}, err
	}
	ids, err := namespace.FindIDs()
	if err != nil {
		return protocol.Exit{}, err
	}
	req, terminal, err := l.request(cmd, c, ids.Peer())
	if err != nil {
		return protocol.Exit{}, err
	}
	var session control.SessionCreated
	if err := c.do(ctx, "POST", control.PathSessions, req, &session); err != nil {
		return protocol.Exit{}, l.explain(err)
	}
	defer func() {
		end, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		if err := c.do(end, "POST", control.PathSession+session.ID+"/end", nil, nil); err != nil {
			l.log.Debug("ending the session", "err", err)
		}
	}()
	for _, w := range session.Warnings {
		fmt.Fprintf(cmd.ErrOrStderr(), "torno: %s\n", config.EscapeControl(w))
	}
	return l.guestRun(ctx, session, req, ids, terminal, signals)
}

// request says what session to register.
func (l *launch) request(cmd *cobra.Command, c *client, peer uint32) (control.SessionRequest, *run.Terminal, error) {
	dir, err := os.Getwd()
	if err != nil {
		return control.SessionRequest{}, nil, err
	}
	token := make([]byte, protocol.TokenSize)
	rand.Read(token)
	req := control.SessionRequest{
		Agent: l.agent, Isolation: protocol.IsolationNamespace, RunToken: token, PeerUID: &peer,
		Workload: protocol.Workload{Argv: l.argv, Env: workloadEnv(), Dir: dir},
	}
	if req.File, err = l.agentFile(cmd, c, dir); err != nil {
		return req, nil, err
	}
	var terminal *run.Terminal
	if t, ok := run.OpenTerminal(os.Stdin); ok && isTerminal(os.Stdout) {
		terminal = t
		req.Workload.TTY = true
		req.Workload.Rows, req.Workload.Cols = t.Size()
	}
	return req, terminal, nil
}

// agentFile returns the trusted torno.toml of dir, or nil if there is none.
func (l *launch) agentFile(cmd *cobra.Command, c *client, dir string) ([]byte, error) {
	path, b, ok, err := config.FindAgentFile(dir)
	if err != nil || !ok {
		return nil, err
	}
	t, err := readTrustable(path, b, l.agent)
	if err != nil {
		return nil, err
	}
	return b, t.ensure(cmd, c, l.trustConfig)
}

// passedEnv are the variables of the caller that the workload gets.
var passedEnv = []string{"TERM", "COLORTERM", "LANG", "LANGUAGE", "TZ", "NO_COLOR", "FORCE_COLOR", "CLICOLOR"}

func workloadEnv() []string {
	var env []string
	for _, name := range passedEnv {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	for _, kv := range os.Environ() {
		if strings.HasPrefix(kv, "LC_") {
			env = append(env, kv)
		}
	}
	return env
}

// explain adds to the broker's refusal what to type.
func (l *launch) explain(err error) error {
	var e *control.Error
	if errors.As(err, &e) && e.Code == control.CodeUntrusted {
		return &hintError{err, "torno trust --agent " + l.agent}
	}
	return err
}

// guestRun starts the guest and serves its run channel until the workload has ended.
func (l *launch) guestRun(ctx context.Context, session control.SessionCreated, req control.SessionRequest, ids namespace.IDs,
	terminal *run.Terminal, signals <-chan os.Signal) (protocol.Exit, error) {
	guest, err := l.findGuest()
	if err != nil {
		return protocol.Exit{}, err
	}
	sockets := filepath.Dir(strings.TrimPrefix(session.Broker, "unix://"))
	ln, err := listenRun(filepath.Join(sockets, "r"), ids.Peer())
	if err != nil {
		return protocol.Exit{}, err
	}
	defer ln.Close()
	hidden, err := hiddenPaths()
	if err != nil {
		return protocol.Exit{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	console := &tailBuffer{limit: 4 << 10}
	p, err := namespace.Start(ctx, namespace.Spec{
		Guest: guest, Sockets: sockets, Dir: req.Workload.Dir, Mounts: l.mounts, Hidden: hidden, IDs: ids, Log: console,
		Args: []string{"-broker", "unix://" + namespace.SocketDir + "/b", "-run", "unix://" + namespace.SocketDir + "/r"},
	})
	if err != nil {
		return protocol.Exit{}, err
	}
	go func() { <-p.Done(); cancel() }() // a dead guest ends the run channel
	peer := ids.Peer()
	exit, err := run.Serve(ctx, run.Config{
		Listener: ln, Token: protocol.Token(req.RunToken), Peer: &peer,
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Terminal: terminal, Signals: signals, Log: l.log,
	})
	if errors.Is(err, run.ErrNoExit) {
		if said := console.String(); said != "" {
			err = fmt.Errorf("%w:\n%s", err, said)
		}
		return exit, &hintError{err, "torno doctor looks for what is wrong"}
	}
	select {
	case <-p.Done():
	case <-time.After(5 * time.Second):
		p.Kill()
		<-p.Done()
	}
	return exit, err
}

// listenRun listens on the run socket, which the guest's root alone may open.
func listenRun(path string, peer uint32) (net.Listener, error) {
	addr, err := transport.ParseAddr("unix://" + path)
	if err != nil {
		return nil, err
	}
	ln, err := transport.Listen(addr, protocol.RunPort)
	if err != nil {
		return nil, err
	}
	if int(peer) != os.Geteuid() {
		if err := os.Chown(path, int(peer), -1); err != nil {
			return nil, errors.Join(err, ln.Close())
		}
	}
	return ln, nil
}

// hiddenPaths are what a workload must never be shown.
func hiddenPaths() ([]string, error) {
	state, err := stateDir()
	if err != nil {
		return nil, err
	}
	runtime, err := runtimeDir()
	if err != nil {
		return nil, err
	}
	hidden := []string{state, runtime}
	if home, err := os.UserHomeDir(); err == nil {
		hidden = append(hidden, home)
	}
	return hidden, nil
}
