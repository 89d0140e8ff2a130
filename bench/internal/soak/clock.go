package soak

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"torno.internal/protocol/control"
)

// jumps are how the clock is set, each from where it was before.
var jumps = []time.Duration{time.Hour, -30 * time.Minute, 36 * time.Hour, -40 * time.Hour}

// The limits of a session, which no jump of the clock may bring to their ends.
const (
	clockIdle  = 10 * 60      // seconds
	clockTotal = 20 * 60 * 60 // as well
	clockFile  = "name = \"work\"\n"
)

// clocks sets this machine's clock forward and back under a broker at work. It is for machines that are there for nothing
// else, and sets the clock right in the end.
func clocks(ctx context.Context, o *Options, r *Report) error {
	if !o.SetClock {
		r.tell("clock", "not tried", 0, "", "sets the machine's clock: -set-clock, or make test-systemd, which does so in a VM")
		return nil
	}
	h, err := newHouse(o.Torno)
	if err != nil {
		return err
	}
	defer func() { _ = h.close() }()
	if _, err := h.start(ctx); err != nil {
		return err
	}
	p := &probe{}
	if p.d, err = newLoad(ctx, h); err != nil {
		return err
	}
	bounded, err := boundedSession(ctx, p.d)
	if err != nil {
		return err
	}
	start, wall := time.Now(), time.Now().Round(0)
	defer func() { _ = setClock(wall.Add(time.Since(start))) }()
	probing, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() { defer close(ended); p.run(probing) }()
	back := 0
	for at, i := time.Duration(0), 0; i < len(jumps) && err == nil; i++ {
		sleep(ctx, brokenFor)
		at += jumps[i]
		if jumps[i] < 0 {
			back++
		}
		err = setClock(wall.Add(time.Since(start) + at))
	}
	sleep(ctx, brokenFor)
	stop()
	<-ended
	if err != nil {
		return err
	}
	return clockReport(ctx, r, p, bounded, start, back)
}

// boundedSession makes a session that ends by itself when it has been idle for long, or has lasted for long.
func boundedSession(ctx context.Context, d *load) (*guest, error) {
	policy := control.AgentPolicy{Name: agentWork, Secrets: []string{workKey}}
	policy.Limits.IdleSeconds, policy.Limits.TotalSeconds = clockIdle, clockTotal
	if err := d.h.trust(ctx, agentWork, []byte(clockFile), policy); err != nil {
		return nil, err
	}
	g, err := d.session(ctx, agentWork, clockFile)
	if err != nil {
		return nil, err
	}
	_, err = g.events(ctx) // its guest is there
	return g, err
}

func setClock(t time.Time) error {
	spec := unix.NsecToTimespec(t.UnixNano())
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &spec); err != nil {
		return fmt.Errorf("setting the clock to %v: %w", t, err)
	}
	return nil
}

func clockReport(ctx context.Context, r *Report, p *probe, bounded *guest, start time.Time, back int) error {
	const part = "clock"
	k := &killing{h: p.d.h, d: p.d, real: &realGuest{}}
	other := map[string]int{}
	all := p.after(start)
	for _, o := range all {
		if !isAnswered(&o) {
			other[fmt.Sprintf("%d %s", o.status, o.reason)]++
		}
	}
	if len(all) == 0 {
		return errors.New("no exchange was tried: nothing was tested")
	}
	r.judge(part, "not answered", float64(sum(other)), "", none, fmt.Sprintf("of %d, while the clock jumped %v; %s", len(all), jumps, counts(other)))
	if err := k.checkSessions(ctx); err != nil {
		return err
	}
	r.judge(part, "sessions that a jump ended", float64(len(k.lost)), "", none, "one of them bounded to "+(clockIdle*time.Second).String()+" idle: "+bounded.session)
	told, err := k.count(ctx, "clock_set_back")
	if err != nil {
		return err
	}
	r.judge(part, "jumps back that the audit does not tell", float64(back-told), "", none, fmt.Sprintf("of %d", back))
	k.h.kill()
	took, err := k.h.start(ctx)
	if err != nil {
		return err
	}
	r.tell(part, "ready again after kill -9", took.Seconds(), "s", "")
	if err := errors.Join(k.checkSecrets(ctx), k.compare(ctx), k.verify(ctx)); err != nil {
		return err
	}
	r.judge(part, "acknowledged and lost, or unrecorded", float64(len(k.lost)), "", none, strings.Join(firstOf(k.lost, 2), "; "))
	r.judge(part, "verifications that failed", float64(len(k.broken)), "", none, strings.Join(firstOf(k.broken, 1), "; "))
	return nil
}

// count counts the records of an event.
func (k *killing) count(ctx context.Context, event string) (n int, err error) {
	err = k.query(ctx, control.AuditFilter{Event: event}, func(*control.AuditRecord) { n++ })
	return n, err
}

// query calls f with every record of the audit that a filter wants.
func (k *killing) query(ctx context.Context, filter control.AuditFilter, f func(*control.AuditRecord)) error {
	body, err := json.Marshal(filter)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, "POST", "http://torno"+control.PathAuditQuery, strings.NewReader(string(body)))
	if err != nil {
		return err
	}
	resp, err := k.h.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var rec control.AuditRecord
		if err := json.Unmarshal(lines.Bytes(), &rec); err != nil {
			return fmt.Errorf("%w: %.200s", err, lines.Bytes())
		}
		f(&rec)
	}
	return lines.Err()
}
