package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"torno.internal/host/internal/config"
	"torno.internal/host/internal/namespace"
	"torno.internal/host/internal/run"
	"torno.internal/host/internal/vmm"
	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// A launch is one torno run.
type launch struct {
	agent       string
	isolation   string
	trustConfig bool
	mounts      []string
	guest       string
	debug       bool
	timings     *timings // nil: nobody asked
	console     tailBuffer
	machine     machine
	prove       bool
	proofFile   string
	workspace   string
	acceptCode  bool
	publish     []string
	argv        []string
	root        bool // what torno.toml wants the command to be
	log         *slog.Logger

	work *work // the workspace; nil: none
}

func newRunCommand() *cobra.Command {
	l := launch{}
	var timed bool
	cmd := &cobra.Command{
		Use:   "run --agent NAME [flags] -- CMD…",
		Short: "Run a command with an agent's credentials out of its reach",
		Long: `Run a command with an agent's credentials out of its reach.

The command runs in a microVM without a network card, as user "agent".
Everything that it dials is captured and sent by the broker, which adds the
credential where one is bound to the host. The command needs no key, no proxy
setting and no change.

It sees the image's programs (--image; torno image build), the working
directory and what --mount-ro names, both read-only, and writes to a disk of
its own that is gone afterwards. With --workspace it works in a copy of that
directory instead, and what it changes there is copied back at the end, also if
it crashes. What has changed here meanwhile stays, with the command's beside it;
what this machine would execute by itself (git's hooks, editors' tasks, .envrc)
is held in .torno-review. --publish leads a port of this machine's loopback
address to a server inside.

The VM needs no privilege: QEMU runs it by KVM
where that works, and otherwise emulates it. --prove has all of its memory
searched for the secrets.

With --isolation namespace the command runs in Linux namespaces instead, on
this machine's own kernel and with its programs: weaker, and at full speed
everywhere.

If the working directory has a torno.toml, it must be trusted ("torno trust"):
on a terminal torno shows it and asks. Without one all of the agent's secrets
are in use and nothing but the hosts that they are bound to can be reached.

On a terminal the command gets one; ~. after Enter ends it. Otherwise the first
^C is passed on and the second ends it at once: with a workspace the command,
which leaves a third for the copying back. Then "torno workspace recover" can
still do that.

Exit status: the command's own, 128+n if signal n ended it, 126 if it can't be
executed, 127 if it isn't there, 125 if torno itself failed.`,
		Example: `  torno run --agent my-agent -- python3 agent.py
  torno run --agent my-agent --workspace . --publish 8080 -- claude
  torno run --agent my-agent --prove --memory 4G --cpus 2 -- bash
  torno run --agent my-agent --isolation namespace --mount-ro ~/tools -- bash`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			l.argv = args
			if timed {
				l.timings = &timings{began: time.Now()}
			}
			l.log = newRunLog(cmd)
			return l.run(cmd)
		},
	}
	f := cmd.Flags()
	f.SetInterspersed(false)
	f.StringVar(&l.agent, "agent", "", "whose secrets and policy (required)")
	f.StringVar(&l.isolation, "isolation", string(protocol.IsolationMicroVM), "what stands between the command and this machine: microvm or namespace")
	l.machine.flags(f)
	f.BoolVar(&l.prove, "prove", false, "search all of the VM's memory for the secrets, while the command runs and at the end")
	f.StringVar(&l.proofFile, "proof-file", "", "`file` for the results of --prove as JSON; implies it")
	f.BoolVar(&l.trustConfig, "trust-config", false, "approve torno.toml as it stands now, without asking")
	f.StringArrayVar(&l.mounts, "mount-ro", nil, "`directory` to show to the command, read-only, at its own path (repeat for more)")
	f.StringVar(&l.workspace, "workspace", "", "`directory` to work in a copy of; what changes is copied back")
	f.BoolVar(&l.acceptCode, "accept-host-code", false, "copy back what this machine would execute, too")
	f.StringArrayVar(&l.publish, "publish", nil, "`port` of the command's that 127.0.0.1 leads to, or HOST:GUEST (repeat for more)")
	f.StringVar(&l.guest, "guest", "", "torno-guest (default: beside torno, or in PATH)")
	f.BoolVar(&timed, "timings", false, "print what the time until the command's first instruction went into")
	f.BoolVar(&l.debug, "debug", false, "print what the guest logs")
	_ = f.MarkHidden("debug")
	_ = cmd.RegisterFlagCompletionFunc("agent", completeAgents)
	_ = cmd.RegisterFlagCompletionFunc("image", completeImages)
	_ = cmd.RegisterFlagCompletionFunc("machine", cobra.FixedCompletions([]string{string(vmm.MicroVM), string(vmm.Q35)}, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("isolation", cobra.FixedCompletions([]string{string(protocol.IsolationMicroVM), string(protocol.IsolationNamespace)}, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.MarkFlagDirname("mount-ro")
	_ = cmd.MarkFlagDirname("workspace")
	_ = cmd.RegisterFlagCompletionFunc("publish", cobra.NoFileCompletions)
	return cmd
}

func newRunLog(cmd *cobra.Command) *slog.Logger {
	return slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// run is the command: whatever fails before the workload starts exits with 125, wrong usage with 2.
func (l *launch) run(cmd *cobra.Command) error {
	switch {
	case !control.ValidAgent(l.agent):
		return usageError{&hintError{fmt.Errorf("--agent %q is not an agent's name", l.agent), "torno run --agent NAME -- CMD; a name is " + control.AgentGrammar}}
	case len(l.argv) == 0:
		return usageError{&hintError{errors.New("no command"), "torno run --agent " + l.agent + " -- CMD"}}
	case l.isolation != string(protocol.IsolationMicroVM) && l.isolation != string(protocol.IsolationNamespace):
		return usageError{&hintError{fmt.Errorf("--isolation %q is unknown", l.isolation), "--isolation microvm or namespace"}}
	case l.isolation != string(protocol.IsolationMicroVM) && (l.prove || l.proofFile != ""):
		return usageError{&hintError{errors.New("--prove needs a machine with memory of its own"), "--isolation microvm"}}
	case l.acceptCode && l.workspace == "":
		return usageError{&hintError{errors.New("--accept-host-code says something of a workspace"), "--workspace DIR"}}
	}
	if err := checkPublish(l.publish); err != nil {
		return err
	}
	exit, err := l.launch(cmd)
	if errors.Is(err, context.Canceled) { // ^C before the workload could have it
		return &exitError{nil, protocol.ExitSignalBase + int(unix.SIGINT)}
	}
	if err != nil {
		return &exitError{err, protocol.ExitFailed}
	}
	if exit.Error == "" && exit.Hint != "" {
		fmt.Fprintf(cmd.ErrOrStderr(), "hint: %s\n", config.EscapeControl(exit.Hint))
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
	l.timings.over("broker")
	dir, err := l.directory()
	if err != nil {
		return protocol.Exit{}, err
	}
	if l.work != nil {
		defer l.work.end()
	}
	req, terminal, err := l.request(cmd, c, dir)
	if err != nil {
		return protocol.Exit{}, err
	}
	l.timings.over("agent file")
	s, err := l.prepare(cmd.Context(), dir)
	if err != nil {
		return protocol.Exit{}, err
	}
	defer s.close()
	req.PeerUID, req.Machine = &s.peer, s.machine
	var session control.SessionCreated
	if err := c.do(ctx, "POST", control.PathSessions, req, &session); err != nil {
		return protocol.Exit{}, l.explain(err)
	}
	reported := l.reportConsole(ctx, c, session.ID)
	defer func() {
		end, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		reported(end)
		if err := c.do(end, "POST", control.PathSession+session.ID+"/end", nil, nil); err != nil {
			l.log.Debug("ending the session", "err", err)
		}
	}()
	l.timings.over("session")
	for _, w := range session.Warnings {
		fmt.Fprintf(cmd.ErrOrStderr(), "torno: %s\n", config.EscapeControl(w))
	}
	begin := func(ctx context.Context, at start) (sandbox, error) { return s.begin(ctx, session, at) }
	var p *prover
	if l.prove || l.proofFile != "" {
		p = &prover{c: c, session: session.ID, file: l.proofFile}
	}
	exit, err := l.guestRun(ctx, req, begin, p, terminal, signals)
	if l.work != nil {
		lost := l.finish(ctx, cmd.ErrOrStderr(), signals)
		if lost != nil && err == nil && exit.Error != "" { // both are to be said
			err = errors.New(exit.Error)
		}
		err = errors.Join(err, lost)
	}
	if l.timings != nil {
		err = errors.Join(err, l.timings.print(cmd.ErrOrStderr()))
	}
	if p != nil {
		err = errors.Join(err, p.report(cmd.ErrOrStderr()))
	}
	return exit, err
}

// A prepared sandbox is one that everything is there for, before a session is made for it.
type prepared struct {
	peer    uint32           // who will connect to the session's sockets
	machine *control.Machine // nil: none
	begin   func(ctx context.Context, session control.SessionCreated, s start) (sandbox, error)
	close   func()
}

// prepare gets ready what the isolation needs.
func (l *launch) prepare(ctx context.Context, dir string) (*prepared, error) {
	if l.isolation == string(protocol.IsolationNamespace) {
		ids, err := namespace.FindIDs()
		if err != nil {
			return nil, err
		}
		if l.work != nil {
			if err := l.work.checkMemory(); err != nil {
				return nil, err
			}
		}
		return &prepared{ids.Peer(), nil, func(ctx context.Context, session control.SessionCreated, s start) (sandbox, error) {
			return l.startNamespace(ctx, session, dir, ids, s)
		}, func() {}}, nil
	}
	shown, err := l.shownDirectories(dir)
	if err != nil {
		return nil, err
	}
	plan, err := l.planVM(ctx, shown)
	if err != nil {
		return nil, err
	}
	return &prepared{uint32(os.Geteuid()), plan.describe(l.machine.image), func(ctx context.Context, session control.SessionCreated, s start) (sandbox, error) {
		return startVM(ctx, plan, session, s)
	}, plan.close}, nil
}

// request says what session to register, once torno.toml is trusted.
func (l *launch) request(cmd *cobra.Command, c *client, dir string) (control.SessionRequest, *run.Terminal, error) {
	token := make([]byte, protocol.TokenSize)
	rand.Read(token)
	req := control.SessionRequest{
		Agent: l.agent, Isolation: protocol.Isolation(l.isolation), RunToken: token,
		Workload: protocol.Workload{Argv: l.argv, Env: workloadEnv(), Dir: dir},
	}
	var err error
	if req.File, err = l.agentFile(cmd, c, dir); err != nil {
		return req, nil, err
	}
	if l.work != nil {
		req.Workload.Workspace = dir
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
	if err := t.ensure(cmd, c, l.trustConfig); err != nil {
		return nil, err
	}
	hintPlaceholders(cmd, c, &t.file.Policy)
	l.root = t.file.Policy.Workload.User == protocol.UserRoot
	return b, nil
}

// workingDir returns the working directory by its real path: inside, no link leads to it.
func workingDir() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", &hintError{err, "change to a directory that is there"}
	}
	return filepath.EvalSymlinks(dir)
}

// hintPlaceholders says which of the declared secrets belong to services whose own packages refuse to
// start without a key, and have no placeholder. It is advice: what goes wrong is left to the run.
func hintPlaceholders(cmd *cobra.Command, c *client, p *control.AgentPolicy) {
	var services, tables []string
	for _, key := range p.Secrets {
		var presets []control.Preset
		path := control.PathPresets + "?" + url.Values{"name": {key}}.Encode()
		if p.Secret[key].Placeholder || c.do(cmd.Context(), "GET", path, nil, &presets) != nil {
			continue
		}
		if len(presets) > 0 && presets[0].SDKNeedsKey {
			services = append(services, presets[0].Service)
			tables = append(tables, "[secret."+key+"]")
		}
	}
	if len(tables) > 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "hint: packages of %s refuse to start without a key; placeholder = true in %s of %s gives them an inert one\n",
			strings.Join(services, " and "), strings.Join(tables, " and "), config.AgentFile)
	}
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
