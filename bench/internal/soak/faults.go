package soak

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// What is promised on a disk that goes wrong.
var (
	refuseBound  = bound{must: 7, aim: 1}      // seconds until nothing more happens that can't be recorded: the audit's lag is five
	recoverBound = bound{must: 10, aim: 2}     // seconds until exchanges happen again
	controlBound = bound{must: 2, aim: 0.2}    // seconds until the broker says which sessions there are, meanwhile
	delayBound   = bound{must: 0.25, aim: 0.1} // seconds that an exchange takes on a slow disk, where records are forced to it later
)

// A fault is one way in which a disk goes wrong.
type fault struct {
	name    string
	below   layers
	always  bool          // audit.sync = "always"
	waits   bool          // so that no exchange happens before its record is on the disk
	breaks  string        // what the disk is told
	mends   string        // and then
	refuses bool          // exchanges are refused meanwhile
	again   bool          // mending takes another broker
	slow    time.Duration // what an fsync takes longer
}

// Layers say what a broker's state lies on.
type layers int

const (
	onFUSE     layers = iota // a slowDisk
	onExt4                   // ext4
	onSlowExt4               // ext4 on a slowDisk
)

var faultTable = []fault{
	{name: "slow fsync", below: onSlowExt4, breaks: "delay 500ms", mends: "delay 0s", slow: 500 * time.Millisecond},
	{name: "slow fsync, sync = always", below: onSlowExt4, always: true, waits: true, breaks: "delay 200ms", mends: "delay 0s", slow: 200 * time.Millisecond},
	{name: "fsync that hangs", below: onSlowExt4, breaks: "delay 60s", mends: "delay 0s", refuses: true},
	{name: "fsync and write that hang", breaks: "delay 60s", mends: "delay 0s", refuses: true},
	{name: "fsync fails (EIO)", breaks: "sync EIO", mends: "sync none", refuses: true},
	{name: "full (ENOSPC)", breaks: "write ENOSPC", mends: "write none", refuses: true},
	{name: "broken (EIO)", breaks: "write EIO", mends: "write none", refuses: true},
	{name: "read-only (EROFS)", breaks: "write EROFS", mends: "write none", refuses: true},
	{name: "ext4 aborts", below: onExt4, always: true, breaks: "abort", mends: "repair", refuses: true, again: true},
}

// brokenFor is how long a disk stays broken once what is expected has happened.
const brokenFor = 2 * time.Second

// disks tries each fault on a broker of its own.
func disks(ctx context.Context, o *Options, r *Report) error {
	for i := range faultTable {
		f := &faultTable[i]
		if len(o.Faults) > 0 && !slices.Contains(o.Faults, f.name) {
			continue
		}
		if err := f.try(ctx, o, r); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return nil
}

// place makes the disk and has the house's state on it.
func (f *fault) place(ctx context.Context, o *Options, h *house) (disk, error) {
	switch f.below {
	case onExt4:
		return newExt4Disk(ctx, "", h.state)
	case onSlowExt4:
		return newExt4Disk(ctx, o.SlowFS, h.state)
	}
	return newSlowDisk(o.SlowFS, h.state)
}

// try has the disk go wrong under a broker that is asked all the time, and right again.
func (f *fault) try(ctx context.Context, o *Options, r *Report) (err error) {
	h, err := newHouse(o.Torno)
	if err != nil {
		return err
	}
	if f.always {
		if err := h.configure("\n[audit]\nsync = \"always\"\n"); err != nil {
			return err
		}
	}
	d, err := f.place(ctx, o, h)
	if err != nil {
		return errors.Join(err, h.close())
	}
	defer func() { // the broker first: it has files open there
		err = errors.Join(err, h.stop(), d.close(), h.close())
	}()
	if _, err := h.start(ctx); err != nil {
		return err
	}
	p := &probe{}
	if p.d, err = newLoad(ctx, h); err != nil {
		return err
	}
	probing, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() { defer close(ended); p.run(probing) }()
	err = f.follow(ctx, r, d, p)
	stop()
	<-ended
	if err != nil {
		return err
	}
	return f.after(ctx, r, p)
}

// follow breaks and mends the disk while the probe runs.
func (f *fault) follow(ctx context.Context, r *Report, d disk, p *probe) error {
	part := "disk: " + f.name
	if _, ok := p.until(ctx, time.Now(), patience, isAnswered); !ok {
		return errors.New("no exchange is answered on a disk that works")
	}
	sleep(ctx, brokenFor/2)
	broken := time.Now()
	if err := d.tell(ctx, f.breaks); err != nil {
		return err
	}
	if f.refuses {
		f.refused(ctx, r, part, broken, p)
	} else {
		f.slowed(ctx, r, part, broken, p)
	}
	h := p.d.h
	if f.again {
		h.kill()
	}
	mended := time.Now()
	if err := d.tell(ctx, f.mends); err != nil {
		return err
	}
	if f.again {
		if _, err := h.start(ctx); err != nil {
			return err
		}
	}
	took, _ := p.until(ctx, mended, patience, isAnswered)
	r.judge(part, "goes on after it is mended", took.Seconds(), "s", recoverBound, "")
	sleep(ctx, brokenFor/2)
	return ctx.Err()
}

// refused holds a broker whose disk is broken to refusing exchanges.
func (f *fault) refused(ctx context.Context, r *Report, part string, broken time.Time, p *probe) {
	took, _ := p.until(ctx, broken, patience, isUnrecorded)
	r.judge(part, "refuses what it can't record", took.Seconds(), "s", refuseBound, "")
	since := time.Now()
	before := p.d.h.upstream.total()
	sleep(ctx, brokenFor)
	other := map[string]int{}
	refusals := 0
	for _, o := range p.after(since) {
		if refusals++; !isUnrecorded(&o) {
			other[fmt.Sprintf("%d %s", o.status, o.reason)]++
		}
	}
	r.judge(part, "refused with another reason, or not", float64(sum(other)), "", none, fmt.Sprintf("of %d %s", refusals, counts(other)))
	r.judge(part, "came to the upstream all the same", float64(p.d.h.upstream.total()-before), "", none, "")
	f.controlled(r, part, p)
	if refusals == 0 {
		r.judge(part, "exchanges tried meanwhile", 1, "", none, "none: nothing was tested")
	}
}

// slowed holds a broker whose disk is slow to going on, and where it has to, to waiting for the disk.
func (f *fault) slowed(ctx context.Context, r *Report, part string, broken time.Time, p *probe) {
	sleep(ctx, brokenFor+10*f.slow)
	var took []time.Duration
	early, other := 0, map[string]int{}
	for _, o := range p.after(broken) {
		if !isAnswered(&o) {
			other[fmt.Sprintf("%d %s", o.status, o.reason)]++
			continue
		}
		if took = append(took, o.took); o.took < f.slow*9/10 {
			early++
		}
	}
	r.judge(part, "not answered", float64(sum(other)), "", none, fmt.Sprintf("of %d %s", len(took)+sum(other), counts(other)))
	if len(took) == 0 {
		r.judge(part, "answered", 1, "", none, "none: nothing was tested")
		return
	}
	slices.Sort(took)
	if f.waits {
		r.judge(part, "answered before they were on the disk", float64(early), "", none, fmt.Sprintf("the quickest took %v", took[0].Round(time.Millisecond)))
	} else {
		r.judge(part, "an exchange takes, 99 of 100", took[len(took)*99/100].Seconds(), "s", delayBound, "")
	}
	f.controlled(r, part, p)
}

// controlled holds the broker to answering people meanwhile.
func (f *fault) controlled(r *Report, part string, p *probe) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r.judge(part, "slowest list of sessions", slices.Max(p.control).Seconds(), "s", controlBound, fmt.Sprintf("of %d", len(p.control)))
}

// after kills the broker and holds the next one to what happened.
func (f *fault) after(ctx context.Context, r *Report, p *probe) error {
	part := "disk: " + f.name
	k := &killing{h: p.d.h, d: p.d, real: &realGuest{}}
	k.h.kill()
	if _, err := k.h.start(ctx); err != nil {
		return err
	}
	if err := errors.Join(k.checkSecrets(ctx), k.checkSessions(ctx), k.compare(ctx), k.verify(ctx)); err != nil {
		return err
	}
	r.judge(part, "acknowledged and lost, or unrecorded", float64(len(k.lost)), "", none, strings.Join(firstOf(k.lost, 2), "; "))
	r.judge(part, "verifications that failed", float64(len(k.broken)), "", none, strings.Join(firstOf(k.broken, 1), "; "))
	return nil
}

// configure adds to the operator's file.
func (h *house) configure(text string) error {
	f, err := os.OpenFile(h.conf, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

func sum(m map[string]int) (n int) {
	for _, v := range m {
		n += v
	}
	return n
}

func counts(m map[string]int) string {
	var all []string
	for k, v := range m {
		all = append(all, fmt.Sprintf("%d × %s", v, k))
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// second has another broker try the same directory.
func second(ctx context.Context, o *Options, r *Report) error {
	const part = "two brokers"
	h, err := newHouse(o.Torno)
	if err != nil {
		return err
	}
	defer func() { _ = h.close() }()
	if _, err := h.start(ctx); err != nil {
		return err
	}
	other := *h
	other.runtime = filepath.Join(h.dir, "r2")
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	began := time.Now()
	out, err := other.run(ctx, "serve", "--config", h.conf)
	took := time.Since(began)
	wrong := 0.0
	if pid := fmt.Sprintf("process %d", h.cmd.Process.Pid); err == nil || ctx.Err() != nil || !strings.Contains(out, pid) {
		wrong = 1
	}
	r.judge(part, "the second does not say who is there", wrong, "", none, strings.Join(strings.Fields(out), " "))
	r.judge(part, "the second ends after", took.Seconds(), "s", bound{must: 5, aim: 1}, "")
	if _, _, err := h.gauges(ctx); err != nil {
		r.judge(part, "the first goes on", 1, "", none, err.Error())
	}
	return nil
}
