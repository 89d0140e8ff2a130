package broker

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"torno.internal/broker/internal/audit"
	"torno.internal/broker/internal/credential"
	"torno.internal/broker/internal/metric"
	"torno.internal/broker/internal/policy"
	"torno.internal/broker/internal/redact"
	"torno.internal/broker/internal/session"
	"torno.internal/broker/internal/store"
	"torno.internal/protocol"
	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
	"torno.internal/protocol/transport"
)

// A live session is one that this broker serves now: its socket, its compiled policy, its opened
// secrets.
type live struct {
	b       *Broker
	id      string
	agent   string
	record  *session.Session
	set     atomic.Pointer[credential.Set]
	base    map[string]control.Meta // by secret that follows: what it meant when the session began
	log     *slog.Logger
	ln      net.Listener
	events  chan protocol.EventType // to the guest's event stream
	stats   stats
	paths   map[string]policy.Paths // by secret: which requests to its audience get it
	guards  guards
	seen    sightings
	cancels cancels
	expiry  expiry
	cuts    cuts

	metadataKey [sha256.Size]byte // of tokens of the metadata service

	exposed *redact.Matcher // of the values that the workload was given; nil: none was
	watch   watch

	begun    *terms          // which hold for as long as it lasts
	operator *control.Config // under which it began
	terms    atomic.Pointer[terms]

	counters *metric.Agent // of the session's agent

	granting sync.Mutex // held while grants changes
	grants   atomic.Pointer[[]policy.Grant]

	born     time.Time // when it was made, on the clock that nobody can set
	attended time.Time // when its guest had a stream last, or could not have had one; keepTime's alone

	owner     atomic.Int32 // the process that registered the session; 0: an earlier broker knew
	signing   atomic.Int64 // bytes of content that are held to be signed
	follows   bool         // newer versions of some secret are taken up
	suspended atomic.Bool  // answers repeated secrets; a person must let the session go on
	decoding  atomic.Int32 // coded answers that are being decoded

	ctx      context.Context // ends when the session is no longer served; it is the session's lifetime
	cancel   context.CancelFunc
	wg       sync.WaitGroup    // streams
	sourcing sync.Mutex        // guards sources
	sources  map[string]func() // that are looked after for the session: what ends that
	values   sync.Mutex        // held while secrets are wiped, and while they are read outside of a stream
}

// stats are a session's counters.
type stats struct {
	requests, refused, up, down atomic.Uint64
	forward, channel            atomic.Int64 // streams open now
	masked                      atomic.Int64 // runs of secrets in answers
	last                        atomic.Pointer[decided]
	busy                        atomic.Int64 // exchanges that are open now
	active                      atomic.Int64 // when one ended last, in nanoseconds since the broker started: clocks can be set
}

func (s *stats) count(o *audit.Outcome) {
	s.up.Add(uint64(o.BytesUp))
	s.down.Add(uint64(o.BytesDown))
}

// counters are the counts as a session's record keeps them.
func (s *stats) counters() session.Counters {
	return session.Counters{Requests: s.requests.Load(), Refused: s.refused.Load(), BytesUp: s.up.Load(), BytesDown: s.down.Load()}
}

// A decided exchange is the one that was answered last.
type decided struct {
	method, authority string
	status            int    // 0: reason says why there is none
	reason            string // of a refusal
}

func (d *decided) String() string {
	outcome := d.reason
	if d.status != 0 {
		outcome = strconv.Itoa(d.status)
	}
	return d.method + " " + d.authority + " " + outcome
}

// secrets returns the credentials in use.
func (s *live) secrets() *credential.Set { return s.set.Load() }

// uses says which versions the session uses now.
func (s *live) uses() []control.SecretUse {
	uses, set := s.record.Secrets(), s.secrets()
	for i := range uses {
		u := &uses[i]
		sec, ok := set.Current(u.Name)
		switch {
		case !ok:
			u.State = control.VersionRevoked
			continue
		case set.Revoked(u.Name):
			u.State = control.VersionRevoked
		case sec.Expired(time.Now()):
			u.State = control.VersionExpired
		}
		u.Version, u.Rotation, u.Expires = sec.Meta.Version, sec.Meta.Rotation, sec.Expires()
		if u.Source, u.Fetched = sec.Meta.Source, sec.Fetched; sec.Missing != nil {
			u.Problem = sec.Missing.Error()
		}
	}
	return uses
}

// socketDir is where a session's socket stands: short, since a socket's path may be 107 bytes long.
func (b *Broker) socketDir(id string) string {
	return filepath.Join(b.cfg.RuntimeDir, id[len(id)-8:])
}

// start opens the session's secrets and its socket and makes it live.
func (b *Broker) start(record *session.Session, p *plan) (*live, error) {
	set, err := p.set(func(m control.Meta) (credential.Secret, error) {
		s, err := b.open(m)
		if errors.Is(err, store.ErrRevoked) { // while an earlier broker served the session
			s, err = credential.Secret{Meta: m, Revoked: true}, nil
		}
		s.Placeholder, s.Shared = record.Placeholder(m.Name), record.Shared(m.Inject.Cloud())
		return s, err
	})
	if err != nil {
		return nil, err
	}
	if err := refuseOverlap(set); err != nil {
		set.Wipe()
		return nil, err
	}
	ln, err := b.listenPlace(record)
	if err != nil {
		return nil, err
	}
	s := &live{
		b: b, id: record.ID(), agent: record.Agent(), record: record, ln: ln,
		log: slog.New(newSparing(b.log.Handler())).With("session", record.ID(), "agent", record.Agent()), events: make(chan protocol.EventType, 4),
		attended: time.Now(), born: time.Now().Add(-time.Since(record.Created())), metadataKey: newMetadataKey(),
	}
	s.set.Store(set)
	for _, m := range p.metas {
		if m.Rotation != control.RotationFollow {
			continue
		}
		if s.follows = true; s.base == nil {
			s.base = map[string]control.Meta{}
		}
		s.base[m.Name] = m
	}
	s.exposed = s.guardExposed()
	s.paths, s.operator = p.paths, p.operator
	s.suspended.Store(record.Suspended())
	s.loadGrants()
	s.counters = b.metrics.Agent(s.agent)
	s.stats.active.Store(int64(time.Since(b.started)))
	s.ctx, s.cancel = context.WithDeadline(context.Background(), record.Expires())
	err = s.begin(p.terms())
	if err == nil {
		err = b.add(s)
	}
	if err != nil {
		s.cancel()
		s.guards.release(&b.matchers)
		return nil, errors.Join(err, ln.Close())
	}
	if b.operator.Load() != p.operator { // which was read again meanwhile
		b.narrow(s)
	}
	for i := range p.metas {
		s.expiry.add(&p.metas[i], s.expire)
		s.watchEnd(&p.metas[i])
	}
	s.catchUp()
	s.useSources()
	return s, nil
}

// maxConns is how many connections of a session are taken up at once: its streams, and some that have yet to say what
// they are. Further ones wait in the socket's backlog, where they cost the other sessions no descriptors.
const maxConns = protocol.MaxStreams + channelStreams + 64

// run accepts streams until the session is no longer served, and then closes all that is open.
func (s *live) run() {
	stop := context.AfterFunc(s.ctx, func() { s.ln.Close() })
	defer stop()
	s.acceptAll()
	if errors.Is(s.ctx.Err(), context.DeadlineExceeded) {
		s.event(eventExpired, "")
	}
	s.expiry.end()
	s.b.upstream.CloseSession(s.id)
	s.wg.Wait()
	s.releaseSources()
	s.guards.release(&s.b.matchers)
	s.values.Lock()
	s.secrets().Wipe()
	s.values.Unlock()
	_ = os.RemoveAll(s.b.socketDir(s.id))
}

// acceptAll serves connections, each on a goroutine of its own.
func (s *live) acceptAll() {
	var delay time.Duration
	places := make(chan struct{}, maxConns)
	for {
		select {
		case places <- struct{}{}:
		case <-s.ctx.Done():
			return
		}
		nc, err := s.ln.Accept()
		if s.ctx.Err() != nil {
			if err == nil {
				nc.Close()
			}
			return
		}
		if err != nil { // out of descriptors, say: others will be given back
			delay = min(max(2*delay, 5*time.Millisecond), time.Second)
			s.log.Error("accepting a stream", "err", err)
			time.Sleep(delay)
			<-places
			continue
		}
		delay = 0
		s.wg.Add(1)
		go func() {
			defer s.wg.Done()
			s.handle(nc)
			<-places
		}()
	}
}

// handle serves one connection of the session's socket.
func (s *live) handle(nc net.Conn) {
	defer nc.Close()
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { nc.Close() })()
	st, kind := s.admit(nc)
	if st == nil {
		return
	}
	defer s.leave(kind)
	defer s.survive(kind)
	if err := s.serve(ctx, st, kind); err != nil && ctx.Err() == nil {
		s.broke(kind, err)
	}
}

// admit lets a connection in, or returns no stream.
func (s *live) admit(nc net.Conn) (*stream, protocol.Kind) {
	if !s.knows(nc) {
		return nil, 0
	}
	st, p, err := s.accept(nc)
	if err != nil {
		s.refused(p, err)
		return nil, 0
	}
	return st, p.Kind
}

// knows reports whether the peer is of the user that the session's guest runs as.
func (s *live) knows(nc net.Conn) bool {
	uid, ok := transport.PeerUID(nc)
	if ok && uid != s.record.PeerUID() {
		s.log.Warn("peer of another user turned away", "uid", uid)
		return false
	}
	return true
}

// broke logs why a stream ended.
func (s *live) broke(kind protocol.Kind, err error) {
	s.log.Debug("stream ended", "kind", kind.String(), "err", err)
}

// survive ends one stream, and not the broker, when serving it panics: that is a mistake of ours, and a
// guest that finds it must not take the other sessions down.
func (s *live) survive(kind protocol.Kind) {
	if v := recover(); v != nil {
		s.panicked(kind, v)
	}
}

// panicked logs a panic. What was panicked with stays out of the log.
func (s *live) panicked(kind protocol.Kind, v any) {
	s.log.Error("a stream panicked", "kind", kind.String(), "type", fmt.Sprintf("%T", v), "stack", string(debug.Stack()))
}

// beside runs f on a goroutine of its own and returns where its error will be. If f panics, that is an error and abort
// is called.
func (s *live) beside(f func() error, abort func()) <-chan error {
	done := make(chan error, 1)
	go func() {
		defer func() {
			if v := recover(); v != nil {
				s.panicked(protocol.KindForward, v)
				abort()
				done <- errPanicked
			}
		}()
		done <- f()
	}()
	return done
}

var errPanicked = errors.New("panicked")

// revoke ends the session for ever, at once.
func (s *live) revoke() error {
	err := s.record.Revoke()
	s.cancel()
	return errors.Join(err, s.b.store.KeepSessions())
}

// end ends the session in the ordinary way: its workload has ended.
func (s *live) end() error {
	err := s.record.End()
	s.cancel()
	return err
}

// info is what the control API tells of the session.
func (s *live) info() control.SessionInfo {
	i := s.record.Info()
	i.Requests, i.Refused = s.stats.requests.Load(), s.stats.refused.Load()
	i.BytesUp, i.BytesDown = s.stats.up.Load(), s.stats.down.Load()
	if i.State == string(session.StateLive) && s.suspended.Load() {
		i.State = "suspended"
	}
	i.Secrets = s.uses()
	i.Limits = s.limits()
	i.Streams = int(s.stats.forward.Load() + s.stats.channel.Load())
	if last := s.stats.last.Load(); last != nil {
		i.Last = last.String()
	}
	return i
}

// notify tells the guest, if it listens; an event that nobody takes is dropped.
func (s *live) notify(e protocol.EventType) {
	select {
	case s.events <- e:
	default:
	}
}

// env is what the workload's environment gets: the exposed values and the placeholders.
func (s *live) env() ([]string, error) {
	var env []string
	for _, u := range s.record.Secrets() {
		if p := s.record.Placeholder(u.Name); p != "" {
			env = append(env, u.Name+"="+s.shown(u.Name, p))
		}
		if _, ok := s.secrets().Current(u.Name); u.Expose != control.ExposeEnv || !ok || s.secrets().Revoked(u.Name) {
			continue
		}
		sec, err := s.openExposed(u)
		if err != nil {
			return nil, err
		}
		_ = sec.Value.Use(func(b []byte) error { env = append(env, u.Name+"="+string(b)); return nil })
		sec.Value.Wipe()
		sec.Used(time.Now())
	}
	return append(env, s.signingEnv()...), nil
}

// openExposed returns a value that the workload is shown, which the caller wipes.
func (s *live) openExposed(u control.SecretUse) (credential.Secret, error) {
	sec, ok := s.secrets().Current(u.Name)
	if !ok || sec.Meta.Source == "" {
		return s.b.open(control.Meta{Agent: s.agent, Name: u.Name, Version: u.Version})
	}
	if sec.Missing != nil {
		return credential.Secret{}, missingExposed(&sec)
	}
	s.values.Lock() // the session may end meanwhile
	defer s.values.Unlock()
	sec.Value = secret.New(sec.Value.AppendTo(nil))
	return sec, nil
}
