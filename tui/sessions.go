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

// A sessionsPage shows the live sessions, all about one of them, and revokes and resumes them.
type sessionsPage struct {
	split
	confirm *confirm
}

func newSessionsPage() *sessionsPage { return &sessionsPage{split: newSplit()} }

func (*sessionsPage) title() string  { return "Sessions" }
func (p *sessionsPage) typing() bool { return p.confirm != nil || p.filter.typing }

// badge counts the sessions that wait for a person to let them go on.
func (*sessionsPage) badge(w *world) int {
	n := 0
	for i := range w.sessions {
		if w.sessions[i].State == stateSuspended {
			n++
		}
	}
	return n
}

// States of a session, as the broker says them.
const (
	stateWaiting   = "waiting"
	stateLive      = "live"
	stateSuspended = "suspended"
)

func (p *sessionsPage) keys(w *world) []key.Binding {
	if p.confirm != nil {
		return p.confirm.keys()
	}
	keys := []key.Binding{hint("enter", "details"), hint("v", "revoke")}
	if i := p.current(w); i != nil && i.State == stateSuspended {
		keys = append(keys, hint("u", "resume"))
	}
	return append(keys, hint("o", "requests"))
}

func (p *sessionsPage) shown(w *world, text string) []control.SessionInfo {
	var infos []control.SessionInfo
	for _, i := range w.sessions {
		if holds(text, i.ID, i.Agent, i.State, strings.Join(i.Argv, " "), i.Last) {
			infos = append(infos, i)
		}
	}
	return infos
}

func (p *sessionsPage) current(w *world) *control.SessionInfo {
	for i := range w.sessions {
		if w.sessions[i].ID == p.list.chosen {
			return &w.sessions[i]
		}
	}
	return nil
}

func (p *sessionsPage) update(msg tea.Msg, w *world, a asker) tea.Cmd {
	k, isKey := msg.(tea.KeyPressMsg)
	_, isMouse := msg.(tea.MouseMsg)
	switch {
	case !isKey && !isMouse:
		return nil
	case p.confirm != nil && !isKey:
		return nil
	case p.confirm != nil:
		cmd, left := p.confirm.key(k)
		if left {
			p.confirm = nil
		}
		return cmd
	}
	infos := p.shown(w, p.filter.text)
	keys := make([]string, len(infos))
	for i := range infos {
		keys[i] = infos[i].ID
	}
	matches := func(text string) bool { return len(p.shown(w, text)) > 0 }
	if !p.split.update(msg, keys, matches) && isKey {
		p.list.sync(keys)
		return p.act(k.String(), w, a)
	}
	return nil
}

func (p *sessionsPage) act(name string, w *world, a asker) tea.Cmd {
	i := p.current(w)
	switch {
	case i == nil:
	case name == "v":
		p.confirm = &confirm{
			title: "Revoke session " + i.ID + " of " + i.Agent,
			text:  "What it has open is cut, and nothing that it asks is answered again. Its command is not killed; it reaches nothing any more.",
			want:  "revoke", cmd: a.revokeSession(i.ID),
		}
	case name == "o":
		return requestsOf(i.ID)
	case name == "u" && i.State == stateSuspended:
		return a.resumeSession(i.ID)
	}
	return nil
}

var sessionColumns = []column{
	{title: "SESSION", width: 8},
	{title: "AGENT", width: 10, share: 1},
	{title: "STATE", width: 9},
	{title: "AGE", width: 4, right: true, drop: 1},
	{title: "SENT", width: 5, right: true, drop: 2},
	{title: "REFUSED", width: 7, right: true, drop: 3},
	{title: "OPEN", width: 4, right: true, drop: 5},
	{title: "LAST", width: 12, share: 3, drop: 4},
}

func (p *sessionsPage) view(w *world, s *styles, width, height int) string {
	switch {
	case p.confirm != nil:
		return p.confirm.view(s, width, height)
	case len(w.sessions) == 0:
		return centred(s.title.Render("No session is live")+"\n\n"+s.dim.Render("torno run --agent NAME -- COMMAND  begins one"), width, height)
	}
	infos := p.shown(w, p.filter.text)
	rows := make([]row, 0, len(infos))
	for i := range infos {
		rows = append(rows, sessionRow(&infos[i], w))
	}
	return p.split.view(s, sessionColumns, rows, func(string) []fact { return sessionFacts(p.current(w), w) }, width, height)
}

func stateMood(state string) mood {
	switch state {
	case stateLive:
		return moodGood
	case stateWaiting:
		return moodDim
	case stateSuspended:
		return moodBad
	}
	return moodWarn
}

func sessionRow(i *control.SessionInfo, w *world) row {
	refused := cell{strconv.FormatUint(i.Refused, 10), moodDim}
	if i.Refused > 0 {
		refused.mood = moodWarn
	}
	id := i.ID
	if len(id) > 8 {
		id = id[len(id)-8:] // the random end
	}
	return row{i.ID, []cell{
		{id, moodText}, {i.Agent, moodText}, {i.State, stateMood(i.State)}, {since(w.now, i.Created, w.still), moodDim},
		{strconv.FormatUint(i.Requests, 10), moodText}, refused, {strconv.Itoa(i.Streams), moodDim}, {i.Last, moodDim},
	}}
}

// sessionFacts are all that is known about a session.
func sessionFacts(i *control.SessionInfo, w *world) []fact {
	if i == nil {
		return nil
	}
	command := strings.Join(i.Argv, " ")
	facts := []fact{
		{value: i.Agent, mood: moodTitle}, {}, {"session", i.ID, moodText}, {"state", i.State, stateMood(i.State)},
		{"command", cmp.Or(command, "the VM's own"), moodText},
		{"created", i.Created.Local().Format(time.DateTime) + ", " + since(w.now, i.Created, w.still) + " ago", moodText},
		{"requests", fmt.Sprintf("%d, %d refused", i.Requests, i.Refused), moodText},
		{"bytes", size(i.BytesUp) + " up, " + size(i.BytesDown) + " down", moodText},
		{"open", plural(i.Streams, "stream"), moodText}, {"last", i.Last, moodText}, {"", "", 0},
		{"isolation", string(i.Isolation), moodText},
	}
	if m := i.Machine; m != nil {
		facts = append(facts, fact{"machine", fmt.Sprintf("%s by %s, %s, %d vCPU\nimage %s, kernel %s", m.Kind, m.Accel, size(m.Memory), m.CPUs, m.Image, m.Kernel), moodText})
	}
	facts = append(facts, fact{"identity", i.Identity, moodDim}, fact{"contained", i.Containment, moodDim},
		fact{"weak in", strings.Join(i.Weaknesses, "\n"), moodWarn})
	if i.State == stateSuspended {
		facts = append(facts, fact{}, fact{value: "Hosts repeated its secrets in their answers again and again. The copies were masked. Look at its requests (3), then press u to let it go on.", mood: moodBad})
	}
	facts = append(facts, fact{}, fact{value: "Secrets", mood: moodTitle})
	if len(i.Secrets) == 0 {
		facts = append(facts, fact{value: "none", mood: moodDim})
	}
	for _, u := range i.Secrets {
		text := "version " + strconv.Itoa(u.Version)
		m := moodText
		if u.Expose != control.ExposeNone {
			text, m = text+", visible inside the VM", moodWarn
		}
		if u.Placeholder {
			text += ", placeholder"
		}
		facts = append(facts, fact{u.Name, text, m})
	}
	if console := strings.TrimSpace(strings.ReplaceAll(i.Console, "\r", "")); console != "" {
		facts = append(facts, fact{}, fact{value: "Console", mood: moodTitle}, fact{value: console, mood: moodDim})
	}
	return facts
}
