package boot

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"torno.internal/guest/internal/capture"
	"torno.internal/guest/internal/relay"
	"torno.internal/guest/internal/rootfs"
	"torno.internal/protocol"
)

// Attached guests serve machines with an init of their own: they start no workload, and end no machine.

// attachSteps are the steps of an attached guest, after those of beforeAttached.
var (
	beforeAttached = []step{
		{"process", needsNothing, (*guest).hide},
		{"lo", needsNothing, func(*guest, context.Context) error { return capture.Up() }},
		{"kept session", needsNothing, (*guest).findKept},
	}
	attachedSteps = []step{
		{"hello", needsNothing, (*guest).takeUpOrHello},
		{"clock", needsNothing, (*guest).checkClock},
		{"cards", needsNothing, (*guest).checkCards},
		{"trust", needsNothing, (*guest).installTrust},
		{"plan", needsNothing, (*guest).makePlan},
		{"names", needsNothing, (*guest).answerNames},
		{"capture", needsNothing, (*guest).startCapture},
		{"status", needsNothing, (*guest).writeStatus},
		{"front", needsNothing, (*guest).startFront},
		{"ssh agent", needsNothing, (*guest).startAgent},
		{"signing", needsNothing, (*guest).startSigning},
		{"self-test", needsNothing, (*guest).selfTest},
		{"environment", needsNothing, (*guest).writeEnvironment},
	}
)

// Attach serves a machine that has an init of its own until ctx ends or it is told to stop, and returns an
// exit status. Processes that started before it keep what connections they have, unless there is a network
// card: then those of the workload's user are cut off.
func Attach(ctx context.Context, c Config) int {
	ctx, stop := signal.NotifyContext(ctx, unix.SIGINT, unix.SIGTERM)
	defer stop()
	background, end := context.WithCancel(context.WithoutCancel(ctx))
	g := &guest{Config: c, attached: true, shutdown: stop, background: background}
	err := g.boot(ctx, beforeAttached, attachedSteps)
	if err == nil {
		g.Log.Info("serving", "agent", g.hello.Agent, "session", g.hello.Session, "contained", len(g.cards) == 0)
		notifyReady()
		<-ctx.Done()
	}
	end()
	g.waitForServices()
	if err != nil && !errors.Is(err, context.Canceled) {
		g.complain(err)
		return protocol.ExitFailed
	}
	return 0
}

// notifyReady tells a service manager that waits for it that the machine's workload may start now
// (sd_notify(3)).
func notifyReady() {
	path := os.Getenv("NOTIFY_SOCKET")
	if strings.HasPrefix(path, "@") {
		path = "\x00" + path[1:]
	}
	if path == "" {
		return
	}
	c, err := net.Dial("unixgram", path)
	if err != nil {
		return
	}
	defer c.Close()
	_, _ = c.Write([]byte("READY=1"))
}

// findKept looks for the session that an earlier process of this machine's began, and whether it goes on.
func (g *guest) findKept(ctx context.Context) error {
	if err := makeStateDir(); err != nil {
		return err
	}
	kept, err := readState(stateFile, g.Broker.String())
	if err != nil {
		return &capture.HintError{Err: err, Hint: "remove " + stateFile + " and make a new session on the host"}
	}
	if kept == nil {
		return nil
	}
	err = relay.Try(ctx, g.dialBroker, protocol.Preface{Version: protocol.Version, Kind: protocol.KindChannel, Token: protocol.Token(kept.Token)})
	var status *protocol.StatusError
	switch {
	case err == nil:
		g.kept = kept
		return nil
	case errors.As(err, &status) && (status.Status == protocol.StatusToken || status.Status == protocol.StatusNoSession):
		g.Log.Info("the session has ended, beginning another", "session", kept.Session)
		return nil
	}
	return fmt.Errorf("taking up session %s: %w", kept.Session, err)
}

// takeUpOrHello takes up the kept session, or says hello and keeps the answer.
func (g *guest) takeUpOrHello(ctx context.Context) error {
	if g.kept != nil {
		return g.use(g.kept)
	}
	if err := g.sayHello(ctx); err != nil {
		var status *protocol.StatusError
		var refused *protocol.RefusedError
		if errors.As(err, &status) || errors.As(err, &refused) {
			err = &capture.HintError{Err: err, Hint: "another process of this machine may have been first; revoke the session on the host and make a new one"}
		}
		return err
	}
	return writeState(stateFile, g.Broker.String(), g.hello)
}

// checkCards refuses a network card that the host does not know of: the workload could go past us by it.
func (g *guest) checkCards(context.Context) error {
	var err error
	if g.cards, err = capture.Cards(); err != nil {
		return err
	}
	if len(g.cards) > 0 && !g.hello.OwnEgress {
		return &capture.HintError{
			Err:  fmt.Errorf("this machine has a network card, %s, that the session does not know of", strings.Join(g.cards, ", ")),
			Hint: "torno vm config --own-egress, for injection without containment; or start the machine without it",
		}
	}
	return nil
}

// environmentFile holds what the workload's environment needs, for service managers (EnvironmentFile=) and
// shells (set -a; . FILE).
const environmentFile = stateDir + "/env"

// writeEnvironment writes the exposed secrets, placeholders and variables of trust where the workload's user
// alone can read them.
func (g *guest) writeEnvironment(context.Context) error {
	var b strings.Builder
	for _, list := range [][]string{g.hello.Env, g.trust} {
		for _, entry := range list {
			if key, value, ok := strings.Cut(entry, "="); ok && isName(key) && !strings.ContainsRune(value, 0) {
				b.WriteString(key + `="` + quoted.Replace(value) + "\"\n")
			}
		}
	}
	return writePrivate(environmentFile, []byte(b.String()), int(g.UID))
}

// quoted escapes what means something between double quotes, to a shell and to systemd alike.
var quoted = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "`", "\\`", `$`, `\$`)

func isName(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r != '_' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	}) && (s[0] < '0' || s[0] > '9')
}

// asWorkload calls f on a thread whose sockets count as those of the workload's user, where that user's alone
// are caught.
func (g *guest) asWorkload(f func() error) error {
	if g.plan.User == nil {
		return f()
	}
	return withFileUser(int(g.UID), f)
}

// makeStateDir makes the directory that others may look into, and root alone writes to.
func makeStateDir() error {
	return errors.Join(os.MkdirAll(stateDir, 0o755), os.Chmod(stateDir, 0o755))
}

// writePrivate writes a file that uid alone can read.
func writePrivate(path string, content []byte, uid int) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails once it is renamed
	_, err = f.Write(content)
	if err = errors.Join(err, f.Chown(uid, -1), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// setResolver makes the machine ask us for names, where nobody on it has another network.
func (g *guest) setResolver() error {
	return rootfs.WriteFile("/etc/resolv.conf", []byte("nameserver "+g.plan.Addr4.String()+"\n"))
}

// maxClockError is how far the machine's clock may be off before certificates of the session may fail to verify.
const maxClockError = protocol.LeafBackdate / 2

// checkClock says that the clock, which is the machine's own business, is too far off.
func (g *guest) checkClock(context.Context) error {
	if off := time.Until(g.hello.Time).Abs(); g.kept == nil && off > maxClockError {
		g.Log.Warn("this machine's clock differs from the host's; certificates may not verify", "by", off.Round(time.Second))
	}
	return nil
}
