package soak

import (
	"context"
	"sync"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// An outcome is how one exchange went.
type outcome struct {
	path   string
	began  time.Time
	took   time.Duration
	status int    // 0: none came
	reason string // torno's
}

// A probe makes exchanges, sets secrets and asks how things are, all the time, and keeps how each went.
type probe struct {
	d *load

	mu       sync.Mutex
	outcomes []outcome
	control  []time.Duration // how long the broker took to say which sessions there are
}

// run probes until ctx ends.
func (p *probe) run(ctx context.Context) {
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() { p.exchanges(ctx, p.d.work[i%len(p.d.work)]) })
	}
	set := p.d.setter(0)
	wg.Go(func() {
		for ctx.Err() == nil {
			_ = set(ctx) // what is not acknowledged is not promised
			sleep(ctx, pause)
		}
	})
	wg.Go(func() {
		for ctx.Err() == nil {
			began := time.Now()
			var list []control.SessionInfo
			if p.d.h.call(ctx, "GET", control.PathSessions, nil, &list) == nil {
				p.mu.Lock()
				p.control = append(p.control, time.Since(began))
				p.mu.Unlock()
			}
			sleep(ctx, 5*pause)
		}
	})
	wg.Wait()
}

// exchanges makes exchanges as one client of a guest.
func (p *probe) exchanges(ctx context.Context, g *guest) {
	var st *stream
	for ctx.Err() == nil {
		var err error
		if st == nil {
			if st, err = g.open(ctx, protocol.KindForward); err != nil {
				st = nil
				sleep(ctx, pause)
				continue
			}
		}
		o := outcome{path: p.d.path(""), began: time.Now()}
		a, err := st.ask(request("GET", o.path), nil)
		o.took, o.status, o.reason = time.Since(o.began), a.status, a.reason
		if err != nil {
			st.Close()
			st = nil
		}
		if err == nil && a.status == 200 {
			p.d.l.note(p.d.l.answered, "answered", o.path)
		} else {
			sleep(ctx, pause)
		}
		p.mu.Lock()
		p.outcomes = append(p.outcomes, o)
		p.mu.Unlock()
	}
	if st != nil {
		st.Close()
	}
}

// after returns the outcomes of exchanges that began after a moment.
func (p *probe) after(t time.Time) (all []outcome) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, o := range p.outcomes {
		if o.began.After(t) {
			all = append(all, o)
		}
	}
	return all
}

// until waits for an outcome that is wanted, of an exchange that began after a moment, and returns how long after the moment
// it came.
func (p *probe) until(ctx context.Context, t time.Time, most time.Duration, wanted func(*outcome) bool) (time.Duration, bool) {
	for ctx.Err() == nil && time.Since(t) < most {
		for _, o := range p.after(t) {
			if wanted(&o) {
				return o.began.Add(o.took).Sub(t), true
			}
		}
		sleep(ctx, pause)
	}
	return most, false
}

func isAnswered(o *outcome) bool { return o.status == 200 }

// isUnrecorded reports whether an exchange was refused because it could not be recorded.
func isUnrecorded(o *outcome) bool {
	return o.status == 503 && o.reason == protocol.ReasonAuditUnavailable.String()
}
