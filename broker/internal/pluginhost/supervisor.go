package pluginhost

import (
	"context"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"torno.internal/broker/internal/confine"
	"torno.internal/protocol/control"
)

// Limits on one plugin, where the operator's file says nothing else.
const (
	defaultTimeout = 10 * time.Second
	maxTimeout     = 2 * time.Minute
	defaultMemory  = 512 // MiB
	maxCalls       = 16  // under way at once; more wait
	minBackOff     = time.Second
	maxBackOff     = time.Minute
	idleTime       = 10 * time.Minute // without a call a plugin is stopped
	healthInterval = 30 * time.Second
)

// A supervisor starts one plugin when it is needed, watches over it and stops it.
type supervisor struct {
	name   string
	number int           // of its own user
	user   *confine.User // that the operator named; nil: none
	config control.Plugin
	dir    string // for sockets
	notify func(Event)
	ctx    context.Context // of the host
	life   lifetimes

	starts atomic.Uint64 // that were tried
	calls  atomic.Uint64
	failed atomic.Uint64
	room   chan struct{} // one place for each call that is under way

	mu       sync.Mutex
	current  *instance // nil: none runs
	flight   *flight   // a start that is under way; nil: none
	backOff  time.Duration
	retry    time.Time // not to be started before
	down     *Error    // why it is not to be started before that
	last     *Error    // of the last start or call that failed
	lastTime time.Time
	version  int // of the protocol, once known
	used     time.Time
	watching int // watches that are under way
	closed   bool
	wg       sync.WaitGroup
}

// lifetimes are how long things take: constants, but in tests.
type lifetimes struct {
	idle, health, minBackOff, maxBackOff time.Duration
}

var usual = lifetimes{idle: idleTime, health: healthInterval, minBackOff: minBackOff, maxBackOff: maxBackOff}

// A flight is one start, for all who wait for it.
type flight struct {
	done     chan struct{} // closed when instance or err is there
	instance *instance
	err      error
}

func (s *supervisor) timeout() time.Duration {
	if n := s.config.TimeoutSeconds; n > 0 {
		return min(time.Duration(n)*time.Second, maxTimeout)
	}
	return defaultTimeout
}

func (s *supervisor) memory() int64 {
	if n := s.config.MemoryMiB; n > 0 {
		return int64(n) << 20
	}
	return defaultMemory << 20
}

// fail returns an error of this plugin.
func (s *supervisor) fail(code Code, detail, hint string) *Error {
	return &Error{Plugin: s.name, Code: code, Detail: detail, Hint: hint}
}

// spec is what the plugin is started with, and promised.
func (s *supervisor) spec(program *os.File, group *confine.CGroup) confine.Spec {
	spec := confine.Spec{
		Name: "torno-plugin-" + s.name, Program: program, Read: s.config.Paths, Write: s.config.Writable,
		Network: s.config.Network, Memory: s.memory(), CGroup: group, Number: s.number,
	}
	spec.User = s.user
	for k, v := range s.config.Env {
		spec.Env = append(spec.Env, k+"="+v)
	}
	return spec
}

// get returns the plugin's process, which is started where there is none.
func (s *supervisor) get(ctx context.Context) (*instance, error) {
	in, f, err := s.look()
	if in != nil || err != nil {
		return in, err
	}
	select {
	case <-f.done:
		return f.instance, f.err
	case <-ctx.Done():
		return nil, s.fail(CodeTimeout, "at its start", "")
	}
}

// look returns the process that runs, or the start that will bring one.
func (s *supervisor) look() (*instance, *flight, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used = time.Now()
	switch {
	case s.closed:
		return nil, nil, s.fail(CodeEnding, "", "")
	case s.current != nil && s.current.alive():
		return s.current, nil, nil
	case s.flight != nil:
		return nil, s.flight, nil
	case time.Now().Before(s.retry):
		return nil, nil, s.down
	}
	f := &flight{done: make(chan struct{})}
	s.flight = f
	s.wg.Go(func() { s.start(f) })
	return nil, f, nil
}

// start makes a start, and watches over what it brings.
func (s *supervisor) start(f *flight) {
	ctx, cancel := context.WithTimeout(s.ctx, startTimeout+2*connectTimeout+describeTimeout+s.timeout())
	defer cancel()
	output := &tail{}
	in, err := s.launch(ctx, output, func(string, string) {})
	s.mu.Lock()
	f.instance, s.flight = in, nil
	var failed *Error
	if err != nil {
		output.wipe()
		failed = s.asError(err)
		f.err = failed
		s.note(failed)
		s.delay(failed)
	} else {
		h, _ := in.runner.greeted()
		s.current, s.version = in, h.version
	}
	closed := s.closed
	s.mu.Unlock()
	close(f.done)
	switch {
	case failed != nil:
		s.notify(Event{Plugin: s.name, What: Failed, Err: failed})
		return
	case closed:
		in.stop(true)
		output.wipe()
		return
	}
	s.notify(Event{Plugin: s.name, What: Started})
	s.watchOver(in)
}

// asError returns err as an *Error.
func (s *supervisor) asError(err error) *Error {
	var e *Error
	if !errors.As(err, &e) {
		e = s.fail(CodeNotStarted, err.Error(), "")
	}
	return e
}

// delay puts the next start off, each time longer; s.mu is held.
func (s *supervisor) delay(why *Error) {
	s.backOff = min(max(2*s.backOff, s.life.minBackOff), s.life.maxBackOff)
	s.retry, s.down = time.Now().Add(s.backOff), why
}

// note keeps what failed last; s.mu is held.
func (s *supervisor) note(e *Error) {
	s.failed.Add(1)
	s.last, s.lastTime = e, time.Now()
}

// watchOver returns once the process is gone: it ended, answered nothing any more, or was not needed for long.
func (s *supervisor) watchOver(in *instance) {
	tick := time.NewTicker(s.life.health)
	defer tick.Stop()
	for {
		select {
		case <-in.runner.process.Done():
			s.gone(in, in.explain(s, errors.New("ended")))
			return
		case <-s.ctx.Done():
			s.gone(in, nil)
			return
		case <-tick.C:
		}
		if s.idle() {
			s.gone(in, nil)
			return
		}
		if !s.healthy(in) {
			s.gone(in, s.fail(CodeHung, "", ""))
			return
		}
	}
}

// idle reports whether nobody has needed the plugin for long.
func (s *supervisor) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.watching == 0 && len(s.room) == 0 && time.Since(s.used) > s.life.idle
}

// healthy reports whether the process answers, and leaves the directory that it shares with us alone.
func (s *supervisor) healthy(in *instance) bool {
	ctx, cancel := context.WithTimeout(s.ctx, describeTimeout)
	defer cancel()
	_, err := in.Describe(ctx)
	return err == nil && !crowded(in.runner.spec.Dir) || !in.alive()
}

// crowded reports whether a directory has more than maxEntries files. However many there are, no more are read.
func crowded(dir string) bool {
	f, err := os.Open(dir)
	if err != nil {
		return false
	}
	defer f.Close()
	names, _ := f.Readdirnames(maxEntries + 1)
	return len(names) > maxEntries
}

// maxEntries is how many files a plugin may have beside its socket.
const maxEntries = 16

// gone ends the use of a process, for a reason or none. One that failed is not started again at once.
func (s *supervisor) gone(in *instance, why *Error) {
	s.mu.Lock()
	if s.current != in {
		s.mu.Unlock()
		in.stop(false)
		return
	}
	defer in.runner.output.wipe()
	s.current = nil
	event := Event{Plugin: s.name, What: Stopped}
	if why != nil {
		event.What, event.Err = Failed, why
		s.note(why)
		if time.Since(in.started) > s.life.maxBackOff {
			s.backOff = 0
		}
		s.delay(why)
	}
	s.mu.Unlock()
	in.stop(why == nil)
	s.notify(event)
}

// suspect looks whether a plugin that did not answer in time answers at all, and ends it where it does not.
func (s *supervisor) suspect(in *instance) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.wg.Go(func() {
		if !s.healthy(in) {
			s.gone(in, s.fail(CodeHung, "", ""))
		}
	})
}

// close stops the plugin for good.
func (s *supervisor) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.wg.Wait()
}

// info describes the plugin.
func (s *supervisor) info() control.PluginInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := control.PluginInfo{
		Name: s.name, Kind: s.config.Kind, Path: s.config.Path, SHA256: s.config.SHA256, State: control.PluginIdle,
		Version: s.version, Calls: s.calls.Load(), Failed: s.failed.Load(),
	}
	if s.last != nil {
		i.LastError, i.LastCode, i.LastTime = s.last.Error(), string(s.last.Code), s.lastTime
	}
	switch {
	case s.current != nil && s.current.alive():
		i.State, i.PID, i.Started = control.PluginRunning, s.current.runner.process.PID(), s.current.started
	case time.Now().Before(s.retry):
		i.State, i.Retry = control.PluginFailed, s.retry
	}
	return i
}
