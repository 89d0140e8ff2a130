package tui

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"

	"charm.land/bubbles/v2/key"
	tea "charm.land/bubbletea/v2"

	"torno.internal/protocol/control"
)

// A requestsPage shows what workloads ask for as it happens, newest first, and why each was decided so.
type requestsPage struct {
	split
	paused  uint64 // the last record that is shown; 0: all are
	refused bool   // only what was refused, or went wrong
}

func newRequestsPage() *requestsPage { return &requestsPage{split: newSplit()} }

func (*requestsPage) title() string    { return "Requests" }
func (*requestsPage) badge(*world) int { return 0 }
func (p *requestsPage) typing() bool   { return p.filter.typing }

func (p *requestsPage) keys(*world) []key.Binding {
	pause := hint("p", "pause")
	if p.paused > 0 {
		pause = hint("p", "go on")
	}
	only := hint("f", "refusals and failures")
	if p.refused {
		only = hint("f", "all")
	}
	return []key.Binding{hint("enter", "details"), pause, only}
}

// shown are the entries that the filter and a pause leave, newest first.
func (p *requestsPage) shown(w *world, text string) []*entry {
	var entries []*entry
	for i := len(w.log.entries) - 1; i >= 0; i-- {
		e := &w.log.entries[i]
		if p.paused > 0 && e.Seq > p.paused || p.refused && !e.wrong() {
			continue
		}
		if holds(text, e.Agent, e.Method, e.target(), e.outcome().text, e.Secret, e.Session, e.because()) {
			entries = append(entries, e)
		}
	}
	return entries
}

func (p *requestsPage) update(msg tea.Msg, w *world, _ asker) tea.Cmd {
	k, isKey := msg.(tea.KeyPressMsg)
	if _, isMouse := msg.(tea.MouseMsg); !isKey && !isMouse {
		return nil
	}
	p.list.live = !p.open
	entries := p.shown(w, p.filter.text)
	keys := make([]string, len(entries))
	for i, e := range entries {
		keys[i] = e.key()
	}
	if p.split.update(msg, keys, func(text string) bool { return len(p.shown(w, text)) > 0 }) || !isKey {
		return nil
	}
	switch k.String() {
	case "f":
		p.refused = !p.refused
	case "p":
		if p.paused > 0 {
			p.paused = 0
		} else {
			p.paused = max(1, w.log.last)
		}
	}
	return nil
}

var requestColumns = []column{
	{title: "TIME", width: 8, drop: 1},
	{title: "AGENT", width: 9, share: 1, drop: 4},
	{title: "METHOD", width: 6, drop: 3},
	{title: "TARGET", width: 20, share: 6},
	{title: "SECRET", width: 17, share: 1, drop: 5},
	{title: "OUTCOME", width: 14, share: 1},
	{title: "TOOK", width: 6, right: true, drop: 2},
}

func (p *requestsPage) view(w *world, s *styles, width, height int) string {
	entries := p.shown(w, p.filter.text)
	if len(w.log.entries) == 0 {
		return centred(s.title.Render("Nothing was asked for yet")+"\n\n"+s.dim.Render("each request of a session stands here, before it is sent"), width, height)
	}
	p.list.live = !p.open
	rows := make([]row, 0, len(entries))
	for _, e := range entries {
		rows = append(rows, requestRow(e))
	}
	banner := ""
	if p.paused > 0 {
		banner = s.warn.Render(" paused") + s.dim.Render(fmt.Sprintf("   %s came since; p goes on", plural(p.since(w), "request")))
		height--
	}
	body := p.split.view(s, requestColumns, rows, func(key string) []fact { return requestFacts(w.log.find(key)) }, width, height)
	if banner != "" {
		body = strings.Join(append(block(body, width, height), banner), "\n")
	}
	return body
}

// since counts what came since the pause.
func (p *requestsPage) since(w *world) int {
	n := 0
	for i := len(w.log.entries) - 1; i >= 0 && w.log.entries[i].Seq > p.paused; i-- {
		n++
	}
	return n
}

// find returns the entry of a key, or nil.
func (l *requestLog) find(key string) *entry {
	seq, err := strconv.ParseUint(key, 10, 64)
	if err != nil {
		return nil
	}
	for i := len(l.entries) - 1; i >= 0 && l.entries[i].Seq >= seq; i-- {
		if l.entries[i].Seq == seq {
			return &l.entries[i]
		}
	}
	return nil
}

func requestRow(e *entry) row {
	took := ""
	if e.End != nil {
		took = micros(e.End.Micros)
	}
	target := cell{e.target(), moodText}
	if e.Type == control.AuditRefused {
		target.mood = moodDim
	}
	return row{e.key(), []cell{
		{e.Time.Local().Format(time.TimeOnly), moodDim}, {e.Agent, moodDim}, {e.Method, moodText}, target,
		{e.Secret, moodDim}, e.outcome(), {took, moodDim},
	}}
}

// requestFacts are all that is recorded of a request, why it was decided so first.
func requestFacts(e *entry) []fact {
	if e == nil {
		return nil
	}
	outcome := e.outcome()
	facts := []fact{
		{value: e.Method + " " + e.target(), mood: moodTitle}, {},
		{"outcome", outcome.text, outcome.mood},
		{"decided", cmp.Or(e.Verdict, map[string]string{control.AuditRefused: "refused"}[e.Type]), moodText},
		{"because", e.because(), moodText}, {"meaning", control.Advice(e.Reason), moodText}, {"approval", e.Approval, moodText},
		{"credential", secretText(e), moodAccent},
	}
	if e.PathBytes > 0 {
		facts = append(facts, fact{"path", fmt.Sprintf("%d bytes, SHA-256 %s", e.PathBytes, e.PathSHA256), moodDim})
	}
	if e.Placeholders > 0 {
		facts = append(facts, fact{"marks", plural(e.Placeholders, "placeholder") + " in the request", moodText})
	}
	facts = append(facts, fact{}, fact{"time", e.Time.Local().Format("2006-01-02 15:04:05.000"), moodText})
	facts = append(facts, endFacts(e.End)...)
	return append(facts, fact{},
		fact{"agent", e.Agent, moodText}, fact{"session", e.Session, moodText}, fact{"dialled", e.Dialled, moodDim},
		fact{"fields", strings.Join(e.Fields, "\n"), moodDim}, fact{"record", strconv.FormatUint(e.Seq, 10), moodDim})
}

func secretText(e *entry) string {
	switch {
	case e.Secret == "":
		return "none"
	case e.Version == 0:
		return e.Secret
	}
	return fmt.Sprintf("%s version %d", e.Secret, e.Version)
}

func endFacts(end *control.AuditRecord) []fact {
	if end == nil {
		return nil
	}
	took := micros(end.Micros) + " in all"
	if end.HeadMicros > 0 {
		took += ", " + micros(end.HeadMicros) + " until the response's head"
	}
	if end.DialMicros > 0 {
		took += ", " + micros(end.DialMicros) + " to connect"
	}
	facts := []fact{
		{"took", took, moodText}, {"bytes", size(uint64(max(0, end.Up))) + " up, " + size(uint64(max(0, end.Down))) + " down", moodText},
		{"upstream", strings.TrimSpace(end.Upstream + " " + end.Via), moodText}, {"reason", end.Reason, moodWarn},
	}
	if end.Masked > 0 {
		facts = append(facts, fact{"masked", plural(end.Masked, "run") + " of secrets in the answer", moodWarn})
	}
	if end.Aborted {
		facts = append(facts, fact{"aborted", "it was cut before its end", moodWarn})
	}
	return facts
}
