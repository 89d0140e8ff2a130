package cli

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"torno.internal/host/internal/config"
	"torno.internal/host/internal/namespace"
	"torno.internal/host/internal/run"
	"torno.internal/protocol"
	"torno.internal/protocol/control"
	"torno.internal/protocol/transport"
)

// guestName is the guest's executable.
const guestName = "torno-guest"

// findGuest finds torno-guest: as told, beside torno, or in PATH.
func (l *launch) findGuest() (string, error) {
	if l.guest != "" {
		if !isExecutable(l.guest) {
			return "", &hintError{fmt.Errorf("--guest %q is no program", l.guest), "make build builds bin/" + guestName}
		}
		return filepath.Abs(l.guest)
	}
	if self, err := os.Executable(); err == nil {
		if path := filepath.Join(filepath.Dir(self), guestName); isExecutable(path) {
			return path, nil
		}
	}
	if path, err := exec.LookPath(guestName); err == nil {
		return filepath.Abs(path)
	}
	return "", &hintError{errors.New(guestName + " is not there"), "it belongs beside torno (make build); --guest names another place"}
}

func isExecutable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0
}

// A sandbox is what the guest runs in.
type sandbox interface {
	Done() <-chan struct{} // closed once nothing of it runs any more
	Kill()                 // ends it at once
}

// A start is what starting a sandbox needs to know of the run.
type start struct {
	dir     string    // of the run socket
	console io.Writer // takes what the guest says
	prover  *prover   // searches its memory; nil: nobody asked
}

// A starter starts the sandbox of a session.
type starter func(ctx context.Context, s start) (sandbox, error)

// guestRun starts the guest and serves its run channel until the workload has ended.
func (l *launch) guestRun(ctx context.Context, req control.SessionRequest, begin starter, prover *prover, terminal *run.Terminal, signals <-chan os.Signal) (protocol.Exit, error) {
	dir, ln, err := listenRun(*req.PeerUID)
	if err != nil {
		return protocol.Exit{}, err
	}
	defer os.RemoveAll(dir)
	defer ln.Close()
	published, err := listenPublished(l.publish)
	if err != nil {
		return protocol.Exit{}, err
	}
	defer closePublished(published)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := start{dir, &l.console, prover}
	if l.debug {
		s.console = io.MultiWriter(s.console, harmless{os.Stderr})
	}
	if l.timings != nil {
		s.console = io.MultiWriter(s.console, l.timings)
	}
	p, err := begin(ctx, s)
	if err != nil {
		return protocol.Exit{}, err
	}
	l.timings.over(phaseSandbox)
	go func() { <-p.Done(); cancel() }() // a dead guest ends the run channel
	ended := func() {}
	if prover != nil {
		ended = func() { prover.last(ctx) }
	}
	served := run.Config{
		Listener: ln, Token: protocol.Token(req.RunToken), Peer: req.PeerUID,
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Terminal: terminal, Signals: signals, Ended: ended, Log: l.log,
		Published: published,
	}
	l.work.connect(&served)
	exit, err := run.Serve(ctx, served)
	if errors.Is(err, run.ErrForced) {
		p.Kill()
		<-p.Done()
		if l.work != nil {
			l.work.forced = true
		}
		return exit, nil
	}
	if errors.Is(err, run.ErrNoExit) {
		if said := l.console.String(); said != "" {
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

// startNamespace starts the guest in namespaces of this machine's own kernel.
func (l *launch) startNamespace(ctx context.Context, session control.SessionCreated, dir string, ids namespace.IDs, s start) (sandbox, error) {
	guest, err := l.findGuest()
	if err != nil {
		return nil, err
	}
	hidden, err := hiddenPaths()
	if err != nil {
		return nil, err
	}
	home, _ := os.UserHomeDir() // who has none shows none
	spec := namespace.Spec{
		Guest: guest, Broker: filepath.Dir(strings.TrimPrefix(session.Broker, "unix://")), Run: s.dir,
		Dir: dir, Mounts: l.mounts, Hidden: hidden, Home: home, IDs: ids, Log: s.console,
		Args: []string{"-broker", "unix://" + namespace.BrokerDir + "/b", "-run", "unix://" + namespace.RunDir + "/" + runSocket},
	}
	if l.work != nil {
		spec.Dir = "" // the guest has a copy
	}
	if l.debug {
		spec.Args = append(spec.Args, "-debug")
	}
	if l.timings != nil {
		spec.Args = append(spec.Args, "-timings")
	}
	p, err := namespace.Start(ctx, spec)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// runSocket is the run socket's name in a directory of its own: the broker removes that of the session
// when it is revoked, and the guest still has to say how the workload ended.
const runSocket = "r"

// listenRun listens on a run socket in a new directory, which the guest's root alone may enter.
func listenRun(peer uint32) (dir string, ln net.Listener, err error) {
	runtime, err := runtimeDir()
	if err != nil {
		return "", nil, err
	}
	sweepRuns(runtime)
	var random [4]byte
	rand.Read(random[:])
	dir = filepath.Join(runtime, fmt.Sprintf("r%07x", binary.BigEndian.Uint32(random[:])>>4))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", nil, err
	}
	addr, err := transport.ParseAddr("unix://" + filepath.Join(dir, runSocket))
	if err == nil {
		ln, err = transport.Listen(addr, protocol.RunPort)
	}
	if err == nil && int(peer) != os.Geteuid() {
		err = errors.Join(os.Chown(addr.Path, int(peer), -1), os.Chown(dir, int(peer), -1))
	}
	if err != nil {
		if ln != nil {
			ln.Close()
		}
		return "", nil, errors.Join(err, os.RemoveAll(dir))
	}
	return dir, ln, nil
}

// staleRun is how old the directory of a run socket that nobody listens on must be to be removed.
const staleRun = time.Minute

// sweepRuns removes what runs that were killed have left behind. It is best effort.
func sweepRuns(runtime string) {
	dirs, err := filepath.Glob(filepath.Join(runtime, "r???????"))
	if err != nil {
		return
	}
	for _, dir := range dirs {
		info, err := os.Lstat(dir)
		if err != nil || !info.IsDir() || time.Since(info.ModTime()) < staleRun {
			continue
		}
		c, err := net.Dial("unix", filepath.Join(dir, runSocket))
		if err == nil {
			c.Close()
			continue
		}
		if errors.Is(err, syscall.ECONNREFUSED) {
			_ = os.RemoveAll(dir)
		}
	}
}

// hiddenPaths are what a workload must never be shown, not even in part.
func hiddenPaths() ([]string, error) {
	state, err := stateDir()
	if err != nil {
		return nil, err
	}
	runtime, err := runtimeDir()
	if err != nil {
		return nil, err
	}
	kept, err := keptPlace()
	if err != nil {
		return nil, err
	}
	return []string{state, runtime, kept}, nil
}

// A harmless writes to a terminal what a guest said: nothing of it steers the terminal.
type harmless struct{ to io.Writer }

func (h harmless) Write(p []byte) (int, error) {
	var b strings.Builder
	for piece := range strings.SplitAfterSeq(strings.ReplaceAll(string(p), "\r\n", "\n"), "\n") {
		text, ended := strings.CutSuffix(piece, "\n")
		b.WriteString(config.EscapeControl(text))
		if ended {
			b.WriteByte('\n')
		}
	}
	if _, err := io.WriteString(h.to, b.String()); err != nil {
		return 0, err
	}
	return len(p), nil
}

// A tailBuffer keeps the last bytes written to it. Its zero value keeps as much as the broker does of a
// console. It is safe for concurrent use.
type tailBuffer struct {
	limit int

	mu sync.Mutex
	b  []byte
}

func (t *tailBuffer) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	limit := t.limit
	if limit == 0 {
		limit = control.MaxConsole
	}
	if over := len(t.b) - limit; over > 0 {
		t.b = append(t.b[:0], t.b[over:]...)
	}
	return len(p), nil
}

func (t *tailBuffer) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.b))
}
