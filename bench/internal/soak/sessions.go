package soak

import (
	"context"
	"fmt"
	"sync"
	"time"

	"torno.internal/protocol/control"
)

// What one idle session may cost the broker, in KiB of memory.
var idleBound = bound{must: 64, aim: 32}

// idleCPU bounds what all sessions together cost while nothing happens, in per cent of a core.
var idleCPU = bound{must: 10, aim: 3}

const (
	idleAgents  = 100 // the sessions are theirs
	idleSecrets = 4   // of each
	warm        = 100 // sessions that are there before anything is measured
	registering = 8   // at a time
	spareFiles  = 512 // besides those of sessions
)

// idleFile is what the sessions run under.
const idleFile = "name = %q\n"

// A crowd is many sessions, and what is open of their guests.
type crowd struct {
	h *house

	mu     sync.Mutex
	made   []control.SessionCreated
	guests []*guest
	open   []*stream
}

// sessions measures what registered sessions cost that do nothing: without a guest, and with one that listens for
// events, as each does.
func sessions(ctx context.Context, o *Options, r *Report) error {
	const part = "sessions"
	var guests int
	h, err := newHouse(o.Torno)
	if err != nil {
		return err
	}
	defer func() { _ = h.close() }()
	files, err := raiseFiles(uint64(2 * (o.Sessions + spareFiles)))
	if err != nil {
		return err
	}
	if guests = min(o.Sessions, int(files)-o.Sessions-spareFiles); guests < 1 { // a session is a descriptor, and its guest another
		return fmt.Errorf("%d files may be open (RLIMIT_NOFILE), which is too few for %d sessions", files, o.Sessions)
	}
	if _, err := h.start(ctx); err != nil {
		return err
	}
	c := &crowd{h: h}
	defer c.leave()
	if err := c.agents(ctx); err != nil {
		return err
	}
	if err := c.register(ctx, warm); err != nil {
		return err
	}
	before, err := h.settle(ctx, o.Settle)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := c.register(ctx, o.Sessions); err != nil {
		return err
	}
	r.tell(part, "time to register one", time.Since(began).Seconds()*1000/float64(o.Sessions), "ms", fmt.Sprintf("%d, %d at a time", o.Sessions, registering))
	alone, err := h.settle(ctx, o.Settle)
	if err != nil {
		return err
	}
	per := func(from, to usage, n int) float64 { return float64(to.anonymous-from.anonymous) / 1024 / float64(n) }
	waiting := per(before, alone, o.Sessions)
	r.judge(part, "memory of one that waits for its guest", waiting, "KiB", idleBound, fmt.Sprintf("of %d, with %d secrets each", o.Sessions, idleSecrets))
	busy, err := h.busy(ctx)
	if err != nil {
		return err
	}
	r.judge(part, "processor while nothing happens", busy, "% of a core", idleCPU, fmt.Sprintf("%d sessions that wait", o.Sessions+warm))
	if err := c.join(ctx, warm); err != nil {
		return err
	}
	if err := c.join(ctx, guests); err != nil {
		return err
	}
	joined, err := h.settle(ctx, o.Settle)
	if err != nil {
		return err
	}
	r.judge(part, "memory of one with an idle guest", waiting+per(alone, joined, guests), "KiB", idleBound, fmt.Sprintf("of %d; its stream of events is open", guests))
	c.leave()
	return c.again(ctx, o, r, part)
}

// again ends the broker with all its sessions and starts it anew.
func (c *crowd) again(ctx context.Context, o *Options, r *Report, part string) error {
	c.h.kill()
	took, err := c.h.start(ctx)
	if err != nil {
		return err
	}
	r.tell(part, "start that takes them all up", took.Seconds(), "s", "after kill -9")
	var health control.Health
	if err := c.h.call(ctx, "GET", control.PathHealth, nil, &health); err != nil {
		return err
	}
	r.judge(part, "sessions lost by kill -9", float64(o.Sessions+warm-health.Sessions), "", none, "")
	return nil
}

// agents sets the secrets of all agents and approves their files.
func (c *crowd) agents(ctx context.Context) error {
	for a := range idleAgents {
		name := agentName(a)
		for s := range idleSecrets {
			if err := c.h.set(ctx, name, fmt.Sprintf("SERVICE_%d_KEY", s), newValue(), 1, control.RotationPin); err != nil {
				return err
			}
		}
		policy := control.AgentPolicy{Name: name, Egress: control.Egress{Allow: []string{"GET *.example.org", "github.com/*/*/git-upload-pack"}, Ask: []string{"POST " + host + "/refunds"}}}
		for s := range idleSecrets {
			policy.Secrets = append(policy.Secrets, fmt.Sprintf("SERVICE_%d_KEY", s))
		}
		if err := c.h.trust(ctx, name, fmt.Appendf(nil, idleFile, name), policy); err != nil {
			return err
		}
	}
	return nil
}

func agentName(n int) string { return fmt.Sprintf("agent-%04d", n) }

// register makes n more sessions.
func (c *crowd) register(ctx context.Context, n int) error {
	return each(ctx, n, func(i int) error {
		name := agentName(i % idleAgents)
		s, err := c.h.register(ctx, name, fmt.Appendf(nil, idleFile, name))
		if err != nil {
			return err
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.made = append(c.made, s)
		return nil
	})
}

// join lets the guests of n more sessions come.
func (c *crowd) join(ctx context.Context, n int) error {
	from := len(c.guests)
	return each(ctx, n, func(i int) error {
		g, err := join(ctx, c.made[from+i])
		if err != nil {
			return err
		}
		st, err := g.events(ctx)
		if err != nil {
			return err
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.guests, c.open = append(c.guests, g), append(c.open, st)
		return nil
	})
}

// leave closes what the guests have open.
func (c *crowd) leave() {
	for _, st := range c.open {
		st.Close()
	}
	c.open = nil
}

// each calls f for 0 to n-1, several at a time, until one fails.
func each(ctx context.Context, n int, f func(int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan int)
	var wg sync.WaitGroup
	for range registering {
		wg.Go(func() {
			for i := range next {
				if err := f(i); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	for i := range n {
		select {
		case next <- i:
			continue
		case <-ctx.Done():
		}
		break
	}
	close(next)
	wg.Wait()
	return context.Cause(ctx)
}

// settle waits until the broker's memory has stopped shrinking, for at most so long, and returns what it holds then: what
// was thrown away is given back little by little.
func (h *house) settle(ctx context.Context, most time.Duration) (usage, error) {
	const step = time.Second
	least, err := h.usage()
	for quiet, began := 0, time.Now(); err == nil && time.Since(began) < most; {
		select {
		case <-ctx.Done():
			return usage{}, ctx.Err()
		case <-time.After(step):
		}
		var now usage
		if now, err = h.usage(); err != nil {
			break
		}
		if now.anonymous < least.anonymous-least.anonymous/200 {
			quiet = 0
		} else if quiet++; quiet > int(most/step/2) {
			return now, nil
		}
		least = now
	}
	return least, err
}

// busy is how much of a core the broker takes, in per cent.
func (h *house) busy(ctx context.Context) (float64, error) {
	const long = 5 * time.Second
	before, err := h.usage()
	if err != nil {
		return 0, err
	}
	select {
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-time.After(long):
	}
	after, err := h.usage()
	return 100 * float64(after.cpu-before.cpu) / float64(long), err
}
