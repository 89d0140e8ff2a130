package tui

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"charm.land/bubbles/v2/key"
	tea "charm.land/bubbletea/v2"

	"torno.internal/protocol/control"
)

// A healthPage shows how the broker is: itself, its store, its audit, the last search of a machine's memory, and
// what each upstream did in the last minutes.
type healthPage struct {
	list     list
	checking bool
	checked  time.Time
	store    *control.StoreVerdict
	audit    *control.AuditVerdict
	problem  error
}

func newHealthPage() *healthPage { return &healthPage{} }

func (*healthPage) title() string { return "Health" }
func (*healthPage) typing() bool  { return false }

// badge counts what is wrong.
func (p *healthPage) badge(w *world) int {
	n := 0
	for i := range w.secrets {
		if w.secrets[i].Broken != "" {
			n++
		}
	}
	if p.audit != nil && !p.audit.OK {
		n++
	}
	return n
}

func (p *healthPage) keys(*world) []key.Binding {
	return []key.Binding{hint("enter", "its requests"), hint("c", "check store and audit")}
}

func (p *healthPage) update(msg tea.Msg, w *world, a asker) tea.Cmd {
	switch msg := msg.(type) {
	case checkedMsg:
		p.checking, p.checked, p.store, p.audit, p.problem = false, w.now, msg.store, msg.audit, msg.err
	case tea.KeyPressMsg:
		if msg.String() == "c" && !p.checking {
			p.checking = true
			return a.check()
		}
		if msg.String() == "enter" && p.list.chosen != "" {
			return requestsOf(strings.TrimSuffix(p.list.chosen, ":443"))
		}
		p.list.update(msg, upstreamKeys(w), 0)
	case tea.MouseWheelMsg:
		p.list.update(msg, upstreamKeys(w), 0)
	}
	return nil
}

func (p *healthPage) view(w *world, s *styles, width, height int) string {
	lines := drawFacts(s, p.facts(w), width-2)
	for i, l := range lines {
		lines[i] = " " + l
	}
	lines = append(lines, "", " "+s.title.Render("Upstreams")+s.dim.Render(fmt.Sprintf("   the last %d minutes, newest at the right", int(window.Minutes()))))
	room := height - len(lines)
	ups := upstreams(&w.log, w.now)
	if len(ups) == 0 {
		return strings.Join(append(lines, s.dim.Render("   nothing was sent")), "\n")
	}
	return strings.Join(append(lines, upstreamTable(p, s, ups, width, room)), "\n")
}

// facts are the broker's own.
func (p *healthPage) facts(w *world) []fact {
	h := &w.health
	protected := cell{"protected by " + w.key.Protected, moodText}
	if w.key.Protected == "none" || w.key.Protected == "" {
		protected = cell{"a file that only you can read; torno key protect puts a passphrase on it", moodDim}
	}
	facts := []fact{
		{"broker", fmt.Sprintf("version %s, protocol %d, pid %d, up %s", h.Version, h.Protocol, h.PID, since(w.now, h.Started, w.still)), moodText},
		{"key", w.key.ID + ", " + protected.text, protected.mood},
		p.storeFact(w), p.auditFact(w), proofFact(w),
	}
	if p.problem != nil {
		facts = append(facts, fact{"check", errorText(p.problem), moodBad})
	}
	return facts
}

func (p *healthPage) storeFact(w *world) fact {
	broken := 0
	for i := range w.secrets {
		if w.secrets[i].Broken != "" {
			broken++
		}
	}
	text := fmt.Sprintf("%s, in %s", plural(len(w.secrets), "secret"), w.health.StateDir)
	switch {
	case broken > 0:
		return fact{"store", fmt.Sprintf("%d of %d secrets were changed outside of torno", broken, len(w.secrets)), moodBad}
	case p.checking:
		text += "; checking …"
	case p.store != nil && p.store.OK:
		return fact{"store", fmt.Sprintf("%s; commit %d verified %s ago", text, p.store.Commit, since(w.now, p.checked, w.still)), moodGood}
	case p.store != nil:
		return fact{"store", plural(len(p.store.Broken), "record") + " changed outside of torno: torno store verify names them", moodBad}
	}
	return fact{"store", text, moodText}
}

func (p *healthPage) auditFact(w *world) fact {
	text := fmt.Sprintf("record %d, %s ago", w.log.last, since(w.now, w.log.lastTime, w.still))
	if !w.log.checkpoint.Time.IsZero() {
		text += ", signed " + since(w.now, w.log.checkpoint.Time, w.still) + " ago"
	}
	switch a := p.audit; {
	case !w.log.live:
		return fact{"audit", "its stream is not open", moodWarn}
	case a != nil && a.OK:
		return fact{"audit", fmt.Sprintf("%s; %d records verified %s ago", text, a.Records, since(w.now, p.checked, w.still)), moodGood}
	case a != nil:
		return fact{"audit", fmt.Sprintf("record %d: %s", a.Record, a.Problem), moodBad}
	}
	return fact{"audit", text, moodText}
}

// proofFact is the last search of a machine's memory that the stream has told of.
func proofFact(w *world) fact {
	r := &w.log.proof
	if r.Seq == 0 {
		return fact{"last proof", "none; torno run --prove makes one", moodDim}
	}
	m := map[string]mood{string(control.ProofClean): moodGood, string(control.ProofLeak): moodBad}[r.Verdict]
	return fact{"last proof", fmt.Sprintf("%s, %s ago, session %s of %s", r.Verdict, since(w.now, r.Time, w.still), r.Session, r.Agent), m}
}

// The window that upstreams are judged by.
const (
	window = 5 * time.Minute
	bins   = 20
)

// An upstream is what one authority did within the window.
type upstream struct {
	authority               string
	requests, refused, errs int
	rate, latency           [bins]float64 // per bin: requests, and the mean of microseconds until the response's head
	no                      [bins]float64 // refusals
	times                   []int64
}

// upstreams sums up the log by authority, the busiest first.
func upstreams(l *requestLog, now time.Time) []*upstream {
	by := map[string]*upstream{}
	for i := len(l.entries) - 1; i >= 0; i-- {
		e := &l.entries[i]
		ago := now.Sub(e.Time)
		if ago >= window {
			break
		}
		u := by[e.Authority]
		if u == nil {
			u = &upstream{authority: e.Authority}
			by[e.Authority] = u
		}
		u.count(e, bins-1-min(bins-1, max(0, int(ago*bins/window))))
	}
	all := make([]*upstream, 0, len(by))
	for _, u := range by {
		for i := range u.latency {
			if n := u.rate[i]; n > 0 {
				u.latency[i] /= n
			}
		}
		slices.Sort(u.times)
		all = append(all, u)
	}
	slices.SortFunc(all, func(a, b *upstream) int {
		return cmp.Or(cmp.Compare(b.requests+b.refused, a.requests+a.refused), cmp.Compare(a.authority, b.authority))
	})
	return all
}

func (u *upstream) count(e *entry, bin int) {
	if e.Type == control.AuditRefused {
		u.refused++
		u.no[bin]++
		return
	}
	u.requests++
	u.rate[bin]++
	if e.End == nil {
		return
	}
	if e.End.Status == 0 || e.End.Status >= 500 || e.End.Aborted {
		u.errs++
	}
	us := cmp.Or(e.End.HeadMicros, e.End.Micros)
	u.latency[bin] += float64(us)
	u.times = append(u.times, us)
}

// median is the middle one of the times until a response's head, in microseconds.
func (u *upstream) median() int64 {
	if len(u.times) == 0 {
		return 0
	}
	return u.times[len(u.times)/2]
}

func upstreamKeys(w *world) []string {
	var keys []string
	for _, u := range upstreams(&w.log, w.now) {
		keys = append(keys, u.authority)
	}
	return keys
}

var upstreamColumns = []column{
	{title: "AUTHORITY", width: 16, share: 1},
	{title: "SENT", width: 5, right: true},
	{title: "", width: bins, drop: 2},
	{title: "MEDIAN", width: 6, right: true, drop: 1},
	{title: "", width: bins, drop: 3},
	{title: "REFUSED", width: 7, right: true},
	{title: "", width: bins, drop: 4},
	{title: "ERRORS", width: 6, right: true, drop: 1},
}

func upstreamTable(p *healthPage, s *styles, ups []*upstream, width, height int) string {
	draw := func(v [bins]float64) string {
		if s.plain {
			return ""
		}
		return spark(v[:])
	}
	rows := make([]row, 0, len(ups))
	for _, u := range ups {
		count := func(n int, m mood) cell {
			if n == 0 {
				m = moodDim
			}
			return cell{fmt.Sprint(n), m}
		}
		rows = append(rows, row{u.authority, []cell{
			{strings.TrimSuffix(u.authority, ":443"), moodText}, {fmt.Sprint(u.requests), moodText}, {draw(u.rate), moodAccent},
			{micros(u.median()), moodText}, {draw(u.latency), moodDim}, count(u.refused, moodWarn), {draw(u.no), moodWarn}, count(u.errs, moodWarn),
		}})
	}
	columns := slices.Clone(upstreamColumns)
	if s.plain {
		columns = slices.DeleteFunc(columns, func(c column) bool { return c.title == "" })
		for i := range rows {
			rows[i].cells = []cell{rows[i].cells[0], rows[i].cells[1], rows[i].cells[3], rows[i].cells[5], rows[i].cells[7]}
		}
	}
	return p.list.view(s, columns, rows, width, height)
}
