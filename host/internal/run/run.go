// Package run is the host's side of the run channel (SPEC.md, run channel): the standard streams,
// terminal, signals and exit code of one workload. It belongs to torno run and knows no secret.
package run

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"torno.internal/protocol"
)

// Limits of one run.
const (
	maxStreams = 16               // connections at once, beside those of published ports; a run needs five
	maxExit    = 64 << 10         // bytes of JSON
	copyBuffer = 32 << 10         // bytes
	intGrace   = 10 * time.Second // from the first interrupt to TERM
	lateOutput = 2 * time.Second  // how long output may come after the exit was told
)

// ErrNoExit means that the guest went away without saying how the workload ended.
var ErrNoExit = errors.New("the guest ended without saying how the workload did")

// ErrForced means that the person ended the run at once; the Exit beside it says by which signal.
var ErrForced = errors.New("ended at once, as asked for")

// A Config says what to serve to whom.
type Config struct {
	Listener net.Listener     // the run socket; Serve closes it
	Token    protocol.Token   // which the guest must present
	Peer     *uint32          // user id that the guest connects with; nil: anybody who can
	Stdin    *os.File         // the workload's standard input
	Stdout   *os.File         // and output, or the terminal's with Terminal
	Stderr   *os.File         // and errors
	Terminal *Terminal        // nil: no terminal. Made raw when the workload starts
	Signals  <-chan os.Signal // what the person does to us: those in Signals
	Started  func()           // called once the workload is about to run; may be nil
	Ended    func()           // called once the guest has told how the workload ended, while it waits for the answer; may be nil
	Log      *slog.Logger

	SendWorkspace    func(io.Writer) error // writes what goes in; nil: no workspace
	ReceiveWorkspace func(io.Reader) error // and takes what comes back; an error refuses it
	Published        []Published
	Say              func(line string) // tells the person what happens; may be nil
}

// Serve serves the run channel until the workload has ended and all that it wrote is written, and
// returns how it did. A second interrupt, or ~. on a terminal, ends the run at once, with the Exit of the
// signal and ErrForced: the guest still runs. When ctx ends first the error is ErrNoExit. The terminal
// is as it was when Serve returns, or panics.
func Serve(ctx context.Context, c Config) (protocol.Exit, error) {
	ctx, cancel := context.WithCancel(ctx)
	over, err := newAlarm()
	if err != nil {
		cancel()
		return protocol.Exit{}, errors.Join(err, c.Listener.Close())
	}
	s := &server{
		Config: c, ctx: ctx, over: over, taken: map[string]bool{}, conns: map[net.Conn]bool{},
		clients: newClients(), events: make(chan protocol.RunEvent, 64), exited: make(chan protocol.Exit, 1), forced: make(chan protocol.Exit, 1),
	}
	defer s.restore()
	defer s.end(cancel)
	s.spawn(s.accept)
	for _, p := range c.Published {
		s.spawn(func() { s.publish(p) })
	}
	return s.wait()
}

// A server serves one run.
type server struct {
	Config
	ctx     context.Context // of this call of Serve
	over    *alarm          // ends what waits for standard streams
	clients *clients
	events  chan protocol.RunEvent
	exited  chan protocol.Exit // what the guest said
	forced  chan protocol.Exit // what the person typed
	all     sync.WaitGroup
	output  sync.WaitGroup // handlers of standard output and error

	mu      sync.Mutex
	taken   map[string]bool // requests that come once
	conns   map[net.Conn]bool
	told    bool // how the run ended; no further output begins
	ended   bool // no further connection
	started bool // the workload is about to run
	back    bool // the workload has ended, and the workspace comes back
}

// wait handles signals until the run is over.
func (s *server) wait() (protocol.Exit, error) {
	var h handler
	for {
		select {
		case exit := <-s.exited:
			s.finishOutput()
			return exit, nil
		case exit := <-s.forced:
			return exit, ErrForced
		case <-s.ctx.Done():
			select {
			case exit := <-s.exited: // both at once: the guest ends after it has told
				return exit, nil
			default:
				return protocol.Exit{}, ErrNoExit
			}
		case sig := <-s.Signals:
			if exit, now := h.handle(s, sig); now {
				return exit, ErrForced
			}
		case <-h.late:
			h.late = nil
			s.send(protocol.RunEvent{Type: protocol.RunStop})
		}
	}
}

// finishOutput waits for output that is still under way. The guest tells the exit after its output has
// been taken, so there is none but from one that breaks the order.
func (s *server) finishOutput() {
	s.mu.Lock()
	s.told = true
	s.mu.Unlock()
	done := make(chan struct{})
	s.spawn(func() { s.output.Wait(); close(done) }) // ends with end, which closes the connections
	select {
	case <-done:
	case <-time.After(lateOutput):
	}
}

// end closes everything and waits for everybody.
func (s *server) end(cancel context.CancelFunc) {
	cancel()
	s.Listener.Close()
	for _, p := range s.Published {
		p.Listener.Close()
	}
	s.clients.resetAll()
	s.over.ring()
	s.mu.Lock()
	s.ended = true
	for c := range s.conns {
		c.Close()
	}
	s.mu.Unlock()
	s.all.Wait()
	s.over.close()
}

// spawn runs f on a goroutine of this run. A panic there gives the terminal back before it ends us.
func (s *server) spawn(f func()) {
	s.all.Go(func() {
		defer func() {
			if r := recover(); r != nil {
				s.restore()
				panic(r)
			}
		}()
		f()
	})
}

func (s *server) restore() {
	if s.Terminal != nil {
		s.Terminal.Restore()
	}
}

func (s *server) accept() {
	for {
		c, err := s.Listener.Accept()
		if err != nil {
			if s.ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
				s.Log.Error("run channel", "error", err)
				time.Sleep(50 * time.Millisecond) // out of descriptors, say
				continue
			}
			return
		}
		if !s.add(c) {
			c.Close()
			continue
		}
		s.spawn(func() {
			defer s.remove(c)
			if err := s.serve(c); err != nil && s.ctx.Err() == nil {
				s.Log.Debug("run channel", "error", err)
			}
		})
	}
}

func (s *server) add(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || len(s.conns) >= maxStreams+protocol.MaxPublished*min(1, len(s.Published)) {
		return false
	}
	s.conns[c] = true
	return true
}

func (s *server) remove(c net.Conn) {
	c.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

// take reports whether the request comes for the first time.
func (s *server) take(path string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken[path] {
		return false
	}
	s.taken[path] = true
	return true
}

// beginOutput counts an output in, unless the run's end is told.
func (s *server) beginOutput() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.told {
		return false
	}
	s.output.Add(1)
	return true
}

// isStarted reports whether the workload is about to run or does.
func (s *server) isStarted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.started
}

// send queues an event for the guest; one too many is dropped.
func (s *server) send(e protocol.RunEvent) {
	select {
	case s.events <- e:
	default:
		s.Log.Warn("the guest takes no events", "type", string(e.Type))
	}
}

// tell keeps the first word on how the run ended.
func tell(to chan<- protocol.Exit, exit protocol.Exit) {
	select {
	case to <- exit:
	default:
	}
}
