package tui

import (
	"fmt"
	"strconv"
	"time"

	"charm.land/bubbles/v2/key"
	tea "charm.land/bubbletea/v2"

	"torno.internal/protocol/control"
)

// An approvalsPage is the queue of requests that wait for a person, who decides with one key.
type approvalsPage struct {
	split
	seen    string    // what was chosen when it was drawn last
	changed time.Time // when that became another by itself
	decided map[string]bool
}

func newApprovalsPage() *approvalsPage {
	return &approvalsPage{split: newSplit(), decided: map[string]bool{}}
}

// takeCare is how long keys decide nothing after the chosen request has become another one by itself: the person
// meant the one before.
const takeCare = time.Second

func (*approvalsPage) title() string        { return "Approvals" }
func (p *approvalsPage) badge(w *world) int { return len(p.shown(w, "")) }
func (p *approvalsPage) typing() bool       { return p.filter.typing }
func (p *approvalsPage) current(w *world) *control.Approval {
	for i := range w.waiting {
		if w.waiting[i].ID == p.list.chosen {
			return &w.waiting[i]
		}
	}
	return nil
}

func (p *approvalsPage) keys(w *world) []key.Binding {
	if len(p.shown(w, "")) == 0 {
		return nil
	}
	keys := []key.Binding{hint("y", "allow once")}
	if a := p.current(w); a != nil && a.Grant != "" {
		keys = append(keys, hint("s", "allow for the session"))
	}
	return append(keys, hint("n", "deny"), hint("enter", "details"))
}

// shown are the requests that wait and that nobody here has decided on.
func (p *approvalsPage) shown(w *world, text string) []control.Approval {
	var waiting []control.Approval
	for _, a := range w.waiting {
		if !p.decided[a.ID] && !w.overdue(&a) && holds(text, a.Agent, a.Method, a.Authority, a.Path, a.Rule, a.Secret) {
			waiting = append(waiting, a)
		}
	}
	return waiting
}

func (p *approvalsPage) rows(w *world) []string {
	var keys []string
	for _, a := range p.shown(w, p.filter.text) {
		keys = append(keys, a.ID)
	}
	return keys
}

func (p *approvalsPage) update(msg tea.Msg, w *world, a asker) tea.Cmd {
	k, isKey := msg.(tea.KeyPressMsg)
	_, isMouse := msg.(tea.MouseMsg)
	if done, ok := msg.(doneMsg); ok && done.err != nil {
		clear(p.decided) // it may wait still
	}
	if !isKey && !isMouse {
		p.follow(w)
		return nil
	}
	var cmd tea.Cmd
	matches := func(text string) bool { return len(p.shown(w, text)) > 0 }
	if !p.split.update(msg, p.rows(w), matches) && isKey {
		cmd = p.decide(k.String(), w, a)
	}
	p.list.sync(p.rows(w))
	p.seen = p.list.chosen
	return cmd
}

// follow notices when the chosen request becomes another one, because time ran out or somebody else decided.
func (p *approvalsPage) follow(w *world) {
	for id := range p.decided {
		if !waits(w, id) {
			delete(p.decided, id)
		}
	}
	if p.list.sync(p.rows(w)); p.seen != "" && p.list.chosen != p.seen {
		p.changed = w.now
	}
	p.seen = p.list.chosen
}

func waits(w *world, id string) bool {
	for i := range w.waiting {
		if w.waiting[i].ID == id {
			return true
		}
	}
	return false
}

// decide does what a key means for the chosen request.
func (p *approvalsPage) decide(name string, w *world, a asker) tea.Cmd {
	r := p.current(w)
	if r == nil || p.decided[r.ID] || w.overdue(r) || w.now.Sub(p.changed) < takeCare {
		return nil
	}
	what := r.Method + " " + r.Authority
	var d control.ApprovalDecision
	switch {
	case name == "y":
		d, what = control.ApprovalDecision{ID: r.ID, Allow: true}, what+": allowed once"
	case name == "s" && r.Grant != "":
		d, what = control.ApprovalDecision{ID: r.ID, Allow: true, Session: true}, r.Grant+": allowed for the session"
	case name == "n":
		d, what = control.ApprovalDecision{ID: r.ID}, what+": denied"
	default:
		return nil
	}
	p.decided[r.ID] = true
	return a.decide(d, what)
}

var approvalColumns = []column{
	{title: "LEFT", width: 5, right: true},
	{title: "AGENT", width: 10, share: 1},
	{title: "METHOD", width: 7, drop: 1},
	{title: "TARGET", width: 20, share: 5},
	{title: "SECRET", width: 17, share: 1, drop: 2},
	{title: "RULE", width: 16, share: 2, drop: 3},
}

func (p *approvalsPage) view(w *world, s *styles, width, height int) string {
	waiting := p.shown(w, p.filter.text)
	if len(p.shown(w, "")) == 0 {
		return centred(s.title.Render("Nothing waits for you")+"\n\n"+s.dim.Render("requests that an ask rule matches stand here until you decide"), width, height)
	}
	rows := make([]row, 0, len(waiting))
	for i := range waiting {
		rows = append(rows, approvalRow(&waiting[i], w))
	}
	return p.split.view(s, approvalColumns, rows, func(string) []fact { return approvalFacts(p.current(w), w) }, width, height)
}

// countdown is the time that is left to decide, which turns red towards its end.
func countdown(a *control.Approval, w *world) cell {
	left := a.Expires.Sub(w.now)
	m := moodText
	switch {
	case left < 30*time.Second:
		m = moodBad
	case left < time.Minute:
		m = moodWarn
	}
	if w.still {
		return cell{span(left, true), m}
	}
	left = max(0, left.Round(time.Second))
	return cell{fmt.Sprintf("%d:%02d", int(left.Minutes()), int(left.Seconds())%60), m}
}

func approvalTarget(a *control.Approval) string {
	e := entry{AuditRecord: control.AuditRecord{Authority: a.Authority, Path: a.Path, Scheme: a.Scheme}}
	return e.target()
}

func approvalRow(a *control.Approval, w *world) row {
	return row{a.ID, []cell{
		countdown(a, w), {a.Agent, moodText}, {a.Method, moodText}, {approvalTarget(a), moodText}, {a.Secret, moodAccent}, {a.Rule, moodDim},
	}}
}

// approvalFacts are all that a person has to decide by.
func approvalFacts(a *control.Approval, w *world) []fact {
	if a == nil {
		return nil
	}
	left := countdown(a, w)
	content := "the request does not say how much"
	if a.ContentLength != nil {
		content = size(uint64(max(0, *a.ContentLength)))
	}
	if a.ContentType != "" {
		content += " of " + a.ContentType
	}
	credential := fact{"credential", "none", moodDim}
	if a.Secret != "" {
		credential = fact{"credential", a.Secret + " version " + strconv.Itoa(a.Version), moodAccent}
	}
	facts := []fact{
		{value: a.Method + " " + approvalTarget(a), mood: moodTitle}, {}, {"left", left.text + ", then it is denied", left.mood},
		{"agent", a.Agent, moodText}, credential, {"content", content, moodText},
		{"asks", a.Rule + map[string]string{"ceiling": " (the operator's rule)"}[a.List], moodText},
		{"also", a.Also, moodWarn},
	}
	if a.PathBytes > 0 {
		facts = append(facts, fact{"path", fmt.Sprintf("goes on: %d bytes in all", a.PathBytes), moodWarn})
	}
	facts = append(facts, fact{}, fact{"y", "allows this one request", moodText})
	if a.Grant != "" {
		facts = append(facts, fact{"s", "allows " + a.Grant + " for the rest of the session", moodText})
	} else {
		facts = append(facts, fact{value: "It can be allowed once at a time only: some servers may take it for another request.", mood: moodDim})
	}
	return append(facts, fact{"n", "denies it", moodText}, fact{}, fact{"session", a.Session, moodDim}, fact{"asked", clock(w.now, a.Asked), moodDim})
}
