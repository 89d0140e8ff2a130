// Package broker is torno's host service: it decides what a workload may ask for, records it, adds the
// credential, calls the upstream and brings the answer back. It alone opens secrets. Each of its rooms
// stands in a package of its own below internal; this package lets them work together.
package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"torno.internal/broker/internal/approval"
	"torno.internal/broker/internal/audit"
	ctlserver "torno.internal/broker/internal/control"
	"torno.internal/broker/internal/feed"
	"torno.internal/broker/internal/metric"
	"torno.internal/broker/internal/mint"
	"torno.internal/broker/internal/pluginhost"
	"torno.internal/broker/internal/redact"
	"torno.internal/broker/internal/source"
	"torno.internal/broker/internal/store"
	"torno.internal/broker/internal/upstream"
	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
	"torno.internal/protocol/transport"
)

// Config says where a broker keeps its state and how it reaches the world.
type Config struct {
	StateDir   string         // sealed secrets, sessions, audit; made with mode 0700
	RuntimeDir string         // sockets; made with mode 0700
	Operator   control.Config // broker.toml; the zero value is the public internet, no ceilings
	IdleExit   time.Duration  // end after so long without a session in use or a request; 0: never. A session of a VM that somebody else starts is in use until it ends
	Abandoned  time.Duration  // end a session whose guest has had no stream for so long; 0: a minute. A living guest always has its events open
	Version    string         // of this build, for people
	Log        *slog.Logger   // nil: none

	// Passphrase gives what opens the key file, where a passphrase protects it. It is asked once; nil: nobody
	// can be asked.
	Passphrase func() (secret.Value, error)

	Listener net.Listener                   // the control socket, where somebody else listens on it: a *net.UnixListener; nil: it is made in RuntimeDir
	Ready    func()                         // called once the control socket answers; nil: nobody waits
	Reread   func() (control.Config, error) // reads the operator's file again; nil: there is none

	unlocked    *Locked                                            // that waited for the passphrase; nil: none did
	tokenFresh  time.Duration                                      // mint.Minter.Fresh
	listenVSOCK func(transport.Addr, uint32) (net.Listener, error) // nil: the kernel's
}

// A Broker is open state. Its methods are safe for concurrent use.
type Broker struct {
	cfg      Config
	log      *slog.Logger
	store    *store.Store
	audit    *audit.Log
	auditKey control.AuditKeys
	upstream *upstream.Client
	matchers redact.Cache
	mints    *mint.Minter
	plugins  *pluginhost.Host
	sources  *source.Keeper
	desk     *approval.Desk
	feed     feed.Feed
	metrics  metric.Metrics
	operator atomic.Pointer[control.Config] // broker.toml as it was read last; only Agents and Limits differ from cfg's

	reloading sync.Mutex // held while operator changes
	started   time.Time

	mu      sync.Mutex
	live    map[string]*live        // by session id
	cids    map[uint32]*cidListener // of live sessions whose guests come by the kernel's vsock
	closing bool
	wg      sync.WaitGroup         // one per live session
	touched time.Time              // last control request or session end
	proofs  map[string][]time.Time // by agent: when memory was searched in the last minute

	proving sync.Mutex // held while memory is searched
	storing sync.Mutex // held while secrets are compared with those that are there, and stored

	rotate   chan struct{} // holds one wish for a rotation of the key
	rotation rotation

	// Set by Serve before anything is served.
	machines  net.Listener // on the kernel's vsock; nil: not listened on
	vsockPort uint32       // its port
}

// Open opens the state in cfg.StateDir, or makes it. A *store.BusyError means that another broker has it
// open. Close the broker when done.
func Open(cfg Config) (*Broker, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	b := &Broker{cfg: cfg, log: cfg.Log, live: map[string]*live{}, cids: map[uint32]*cidListener{}, proofs: map[string][]time.Time{}, rotate: make(chan struct{}, 1), started: time.Now(), touched: time.Now()}
	b.operator.Store(&b.cfg.Operator)
	uc, err := upstream.ReadConfig(cfg.Operator)
	if err != nil {
		return nil, err
	}
	uc.Log = slog.New(newSparing(cfg.Log.Handler())) // what an upstream does wrong it may do as often as it likes
	if b.store, err = store.Open(cfg.StateDir, holders(cfg.Operator.Key, cfg.Passphrase)...); err != nil {
		return nil, err
	}
	if err := b.openAudit(); err != nil {
		return nil, errors.Join(fmt.Errorf("opening the audit: %w", err), b.store.Close())
	}
	if err := b.anchorStore(); err != nil {
		return nil, errors.Join(err, b.audit.Close(), b.store.Close())
	}
	if b.plugins, err = pluginhost.New(cfg.Operator.Plugins, cfg.RuntimeDir, b.notePlugin); err != nil {
		return nil, errors.Join(err, b.audit.Close(), b.store.Close())
	}
	b.sources = source.New(pluginFetcher{b.plugins}, b.sourceChanged)
	b.recordStart()
	cfg.unlocked.record(b)
	b.upstream = upstream.New(uc)
	b.mints = mint.New(fetcher{b.upstream}, b.noteMint)
	b.mints.Fresh = cfg.tokenFresh
	b.desk = approval.New(askOptions(cfg.Operator.Limits))
	return b, nil
}

// Close ends what is still open and closes the state.
func (b *Broker) Close() error {
	b.mints.Close()
	b.sources.Close()
	b.plugins.Close()
	b.recordOwn(&audit.Record{Event: eventStopped})
	return errors.Join(b.upstream.Close(), b.audit.Close(), b.store.Close())
}

// Serve listens on the control socket, takes up the sessions that an earlier broker left, and serves
// until ctx ends or the broker has been idle for IdleExit. Sessions stay on record: the next broker
// takes them up again.
func (b *Broker) Serve(ctx context.Context) error {
	ln, err := b.listen()
	if err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	numbers, err := b.openMetrics()
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	if err := b.openVSOCK(); err != nil {
		if numbers != nil {
			numbers.Close()
		}
		return errors.Join(err, ln.Close())
	}
	b.resume()
	var accepting sync.WaitGroup
	defer accepting.Wait()
	accepting.Go(func() { b.rotateKeys(ctx) })
	accepting.Go(func() { b.flushUsage(ctx) })
	accepting.Go(func() { b.keepTime(ctx.Done()) })
	accepting.Go(func() { b.watchAll(ctx.Done()) })
	if numbers != nil {
		accepting.Go(func() { b.serveMetrics(ctx, numbers) })
	}
	if b.machines != nil {
		accepting.Go(func() { b.serveVSOCK(ctx) })
	}
	srv := &http.Server{
		Handler:           b.touching(b.router()),
		ReadHeaderTimeout: 10 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext:       ctlserver.WithConn,
		ErrorLog:          slog.NewLogLogger(b.log.Handler(), slog.LevelWarn),
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	b.log.Info("serving", "state", b.cfg.StateDir, "control", ln.Addr().String())
	if b.cfg.Ready != nil {
		b.cfg.Ready()
	}
	accepting.Go(func() { b.warmStore(ctx) })
	select {
	case err = <-served:
	case <-ctx.Done():
	case <-b.idle(ctx):
		b.log.Info("idle, ending")
	}
	cancel()
	stop, stopped := context.WithTimeout(context.Background(), 2*time.Second)
	defer stopped()
	if serr := srv.Shutdown(stop); serr != nil {
		_ = srv.Close()
	}
	b.endAll()
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	return err
}

// listen returns the control socket.
func (b *Broker) listen() (net.Listener, error) {
	if b.cfg.Listener != nil {
		return ctlserver.Adopt(b.cfg.Listener), nil
	}
	return ctlserver.Listen(filepath.Join(b.cfg.RuntimeDir, control.SocketName))
}

// flushInterval is how much of the use counts a crash may lose.
const flushInterval = 10 * time.Second

// flushUsage writes use counts until ctx ends. Closing the store writes the last of them.
func (b *Broker) flushUsage(ctx context.Context) {
	tick := time.NewTicker(flushInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := b.store.FlushUsage(); err != nil {
			b.log.Error("writing use counts", "err", err)
		}
	}
}

// touching notes each control request, for IdleExit.
func (b *Broker) touching(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.touch()
		h.ServeHTTP(w, r)
	})
}

func (b *Broker) touch() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.touched = time.Now()
}

// idle returns a channel that is closed once nothing has happened for IdleExit and no session has a
// stream open. It never is when IdleExit is zero.
func (b *Broker) idle(ctx context.Context) <-chan struct{} {
	done := make(chan struct{})
	if b.cfg.IdleExit == 0 {
		return done
	}
	go func() {
		tick := time.NewTicker(min(b.cfg.IdleExit, 10*time.Second))
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if b.idleFor() >= b.cfg.IdleExit {
				close(done)
				return
			}
		}
	}()
	return done
}

func (b *Broker) idleFor() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.live {
		if s.record.Place().Network != "" || s.stats.forward.Load()+s.stats.channel.Load() > 0 {
			b.touched = time.Now()
		}
	}
	return time.Since(b.touched)
}

// add makes s live and serves it until it ends.
func (b *Broker) add(s *live) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closing {
		return &control.Error{Code: control.CodeBusy, Message: "the broker is ending", Hint: "try again"}
	}
	b.live[s.id] = s
	b.wg.Add(1)
	go func() {
		defer b.wg.Done()
		s.run()
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.live, s.id)
		b.touched = time.Now()
	}()
	return nil
}

// get returns the live session id, or nil.
func (b *Broker) get(id string) *live {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.live[id]
}

// sessions returns the live sessions of agent, or all for "", oldest first.
func (b *Broker) sessions(agent string) []*live {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []*live
	for _, s := range b.live {
		if agent == "" || s.agent == agent {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(x, y *live) int { return x.record.Created().Compare(y.record.Created()) })
	return all
}

// all returns the live sessions, in no order.
func (b *Broker) all() []*live {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Collect(maps.Values(b.live))
}

// endAll stops serving every session without ending it on record.
func (b *Broker) endAll() {
	b.mu.Lock()
	b.closing = true
	for _, s := range b.live {
		s.cancel()
	}
	b.mu.Unlock()
	b.wg.Wait()
}
