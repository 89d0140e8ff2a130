package soak

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// What may be left of what has ended.
var (
	goroutineGrowth = bound{must: 16, aim: 4}
	openGrowth      = bound{must: 16, aim: 4}     // descriptors
	heapGrowth      = bound{must: 2048, aim: 512} // bytes of the heap that are in use, by session
	memoryGrowth    = bound{must: 32, aim: 8}     // MiB of the process
)

// How the churn is made.
const (
	samples   = 6 // one of them before growth is looked for
	churners  = 4
	exchanges = 5 // on one stream
	frames    = 2 // through one WebSocket
	pieces    = 3 // of one stream of events
	quietFor  = 5 // readings in a row that are no less than the ones before
	quietStep = 300 * time.Millisecond
	heapSlack = 1 << 20 // bytes: what was in use at a collection is not what is in use at rest
)

// A churn has sessions and connections of all kinds come and go.
type churn struct {
	h    *house
	gate sync.RWMutex // held for reading by who does something
	leak bool         // some sessions are never ended: what must be noticed

	mu     sync.Mutex
	counts map[string]int
	wrong  []string  // for people
	leaked []*stream // of sessions that are never ended
}

// A sample is what the broker holds while nothing happens.
type sample struct {
	usage
	goroutines int
	heap       int64
	sessions   int // that have come and gone so far
}

// churning looks whether anything grows while sessions, connections, WebSockets, streams of events, subscribers and
// versions of secrets come and go for long.
func churning(ctx context.Context, o *Options, r *Report) error {
	const part = "churn"
	h, err := newHouse(o.Torno)
	if err != nil {
		return err
	}
	defer func() { _ = h.close() }()
	if _, err := h.start(ctx); err != nil {
		return err
	}
	c := &churn{h: h, leak: o.Leak, counts: map[string]int{}}
	defer c.forget()
	if err := h.set(ctx, agentWork, workKey, newValue(), 1, control.RotationFollow); err != nil {
		return err
	}
	all, err := c.run(ctx, o.Churn)
	if err == nil && all[samples-1].sessions == all[0].sessions {
		err = errNothing
	}
	if err != nil {
		return err
	}
	c.report(r, part, all)
	return nil
}

// run churns for so long and returns the samples.
func (c *churn) run(ctx context.Context, long time.Duration) ([]sample, error) {
	churning, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	jobs := []struct {
		name string
		do   func(context.Context) error
	}{{"events followed", c.subscribe}, {"audit followed", c.follow}, {"reloads", c.reload}, {"versions set", c.renew}}
	for range churners {
		jobs = append(jobs, struct {
			name string
			do   func(context.Context) error
		}{"sessions", c.session})
	}
	for _, job := range jobs {
		wg.Go(func() {
			for churning.Err() == nil {
				c.gate.RLock()
				err := job.do(ctx)
				c.gate.RUnlock()
				c.note(job.name, err)
			}
		})
	}
	var all []sample
	for range samples {
		sleep(ctx, long/samples)
		s, err := c.rest(ctx)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

// note counts what was done, or keeps why not.
func (c *churn) note(name string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.wrong = append(c.wrong, name+": "+err.Error())
		return
	}
	c.counts[name]++
}

// rest stops everything, waits until nothing falls any more and takes a sample.
func (c *churn) rest(ctx context.Context) (sample, error) {
	c.gate.Lock()
	defer c.gate.Unlock()
	c.h.client.CloseIdleConnections()
	var least sample
	for quiet, began := 0, time.Now(); quiet < quietFor && time.Since(began) < patience; sleep(ctx, quietStep) {
		u, err := c.h.usage()
		if err != nil {
			return sample{}, err
		}
		now := sample{usage: u}
		if now.goroutines, now.heap, err = c.h.gauges(ctx); err != nil {
			return sample{}, err
		}
		if quiet++; least.goroutines == 0 || now.goroutines < least.goroutines || now.open < least.open {
			quiet = 0
		}
		least = now
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	least.sessions = c.counts["sessions"]
	return least, ctx.Err()
}

// session is one session from beginning to end, as they go: some of what is open is closed, some breaks.
func (c *churn) session(ctx context.Context) error {
	made, err := c.h.register(ctx, agentWork, nil)
	if err != nil {
		return err
	}
	g, err := join(ctx, made)
	if err != nil {
		return err
	}
	heard, err := g.events(ctx)
	if err != nil {
		return err
	}
	if c.leak {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.leaked = append(c.leaked, heard)
		return nil
	}
	defer heard.Close()
	for _, use := range []func(*stream) error{useExchanges, useExchanges, useSocket, useEvents, useHalf} {
		st, err := g.open(ctx, protocol.KindForward)
		if err != nil {
			return err
		}
		defer st.Close()
		if err := use(st); err != nil {
			return err
		}
		if rand.IntN(2) == 0 {
			st.Close()
		}
	}
	if rand.IntN(4) == 0 {
		return c.h.call(ctx, "DELETE", control.PathSession+g.session, nil, nil)
	}
	return c.h.end(ctx, g.session)
}

func useExchanges(st *stream) error {
	for range exchanges {
		content := []byte(strings.Repeat("content ", rand.IntN(4000)))
		a, err := st.ask(request("POST", "/echo"), content)
		if err != nil {
			return err
		}
		if a.status != 200 || len(a.body) != len(content) {
			return fmt.Errorf("%d %s, %d of %d bytes", a.status, a.reason, len(a.body), len(content))
		}
	}
	return nil
}

func useSocket(st *stream) error { return st.echo(frames) }

// useEvents reads some pieces of a stream that has no end.
func useEvents(st *stream) error {
	_ = st.SetDeadline(time.Now().Add(guestTimeout))
	resp, err := st.begin(request("GET", "/events"))
	if err == nil && resp.Status != 200 {
		err = fmt.Errorf("events: %d", resp.Status)
	}
	b := make([]byte, 64)
	for i := 0; err == nil && i < pieces; i++ {
		_, err = st.r.Read(b)
	}
	return err
}

// useHalf sends half a request.
func useHalf(st *stream) error {
	err := st.w.WriteRequest(request("POST", "/echo"))
	if err == nil {
		_, err = io.WriteString(st.w, "half")
	}
	if err == nil {
		err = st.w.Flush()
	}
	return err
}

// subscribe listens for events for a while.
func (c *churn) subscribe(ctx context.Context) error { return c.listen(ctx, control.PathEvents) }

// follow follows the audit for a while.
func (c *churn) follow(ctx context.Context) error {
	return c.listen(ctx, control.PathAudit+"?follow=1&last=1")
}

func (c *churn) listen(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(50+rand.IntN(100))*time.Millisecond)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", "http://torno"+path, nil)
	if err != nil {
		return err
	}
	resp, err := c.h.client.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

// reload has the operator's file read again.
func (c *churn) reload(ctx context.Context) error {
	sleep(ctx, 100*time.Millisecond)
	return c.h.cmd.Process.Signal(syscall.SIGHUP)
}

// renew sets a newer version of the key that sessions use.
func (c *churn) renew(ctx context.Context) error {
	sleep(ctx, 200*time.Millisecond)
	var next control.NextVersion
	if err := c.h.call(ctx, "GET", control.PathNextVersion+"?agent="+agentWork+"&name="+workKey, nil, &next); err != nil {
		return err
	}
	return c.h.set(ctx, agentWork, workKey, newValue(), next.Version, control.RotationFollow)
}

// forget closes what was leaked.
func (c *churn) forget() {
	for _, st := range c.leaked {
		st.Close()
	}
}

// report compares the first sample after the beginning with the last.
func (c *churn) report(r *Report, part string, all []sample) {
	first, last := all[0], all[len(all)-1]
	gone := last.sessions - first.sessions
	for _, name := range slices.Sorted(maps.Keys(c.counts)) {
		r.tell(part, name, float64(c.counts[name]), "", "")
	}
	between := fmt.Sprintf("while %d sessions came and went", gone)
	r.judge(part, "failures", float64(len(c.wrong)), "", none, strings.Join(firstOf(c.wrong, 2), "; "))
	r.judge(part, "more goroutines", float64(last.goroutines-first.goroutines), "", goroutineGrowth, fmt.Sprintf("%d, then %d, %s", first.goroutines, last.goroutines, between))
	r.judge(part, "more descriptors", float64(last.open-first.open), "", openGrowth, fmt.Sprintf("%d, then %d", first.open, last.open))
	r.judge(part, "more of the heap, by session", float64(max(0, last.heap-first.heap-heapSlack))/float64(max(1, gone)), "bytes", heapGrowth, fmt.Sprintf("%d KiB, then %d KiB", first.heap>>10, last.heap>>10))
	r.judge(part, "more memory", float64(last.anonymous-first.anonymous)/(1<<20), "MiB", memoryGrowth, fmt.Sprintf("%d MiB, then %d MiB", first.anonymous>>20, last.anonymous>>20))
}

var errNothing = errors.New("no session came and went: nothing was tested")
