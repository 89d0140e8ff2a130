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

// A secretsPage lists every agent's secrets, and sets, rotates and deletes them.
type secretsPage struct {
	split
	form    *secretForm // open while not nil
	confirm *confirm    // likewise

	versions []control.SecretVersion // of the chosen secret, as far as they are known
	of       string                  // the secret that versions are of, or are being asked for
}

func newSecretsPage() *secretsPage { return &secretsPage{split: newSplit()} }

func (*secretsPage) title() string      { return "Secrets" }
func (*secretsPage) badge(w *world) int { return 0 }

func (p *secretsPage) typing() bool {
	return p.form != nil || p.confirm != nil || p.filter.typing
}

func (p *secretsPage) keys(w *world) []key.Binding {
	switch {
	case p.form != nil:
		return p.form.keys()
	case p.confirm != nil:
		return p.confirm.keys()
	case len(w.secrets) == 0:
		return []key.Binding{hint("a", "add a secret")}
	}
	return []key.Binding{hint("enter", "details"), hint("a", "add"), hint("r", "rotate"), hint("v", "revoke"), hint("d", "delete"), hint("o", "requests")}
}

func secretKey(i *control.SecretInfo) string { return i.Agent + "/" + i.Name }

// shown are the secrets that the filter leaves.
func (p *secretsPage) shown(w *world, text string) []control.SecretInfo {
	var infos []control.SecretInfo
	for _, i := range w.secrets {
		if holds(text, i.Agent, i.Name, audience(&i), kind(&i)) {
			infos = append(infos, i)
		}
	}
	return infos
}

func (p *secretsPage) rows(w *world) []string {
	infos := p.shown(w, p.filter.text)
	keys := make([]string, len(infos))
	for i := range infos {
		keys[i] = secretKey(&infos[i])
	}
	return keys
}

// current is the chosen secret.
func (p *secretsPage) current(w *world) (control.SecretInfo, bool) {
	agent, name, _ := strings.Cut(p.list.chosen, "/")
	return w.secret(agent, name)
}

func (p *secretsPage) update(msg tea.Msg, w *world, a asker) tea.Cmd {
	switch msg := msg.(type) {
	case setMsg:
		if p.form != nil && p.form.ended(msg) {
			p.form = nil
			p.list.chosen = msg.meta.Agent + "/" + msg.meta.Name
		}
		return nil
	case historyMsg:
		if msg.of == p.of && msg.err == nil {
			p.versions = msg.versions
		}
		return nil
	case polledMsg:
		p.of = "" // what was asked for has changed, perhaps
		p.list.sync(p.rows(w))
		return p.history(w, a)
	case tea.PasteMsg:
		if p.form != nil {
			p.form.paste(msg.Content)
		}
		return nil
	case tea.KeyPressMsg, tea.MouseMsg:
		return tea.Batch(p.input(msg, w, a), p.history(w, a))
	}
	return nil
}

// history asks for the versions of the chosen secret where they are shown.
func (p *secretsPage) history(w *world, a asker) tea.Cmd {
	i, ok := p.current(w)
	if !ok || i.Missing || i.Broken != "" || !p.open && !w.wide || p.of == p.list.chosen {
		return nil
	}
	if len(p.versions) > 0 && (p.versions[0].Agent != i.Agent || p.versions[0].Name != i.Name) {
		p.versions = nil
	}
	p.of = p.list.chosen
	return a.history(i.Agent, i.Name)
}

func (p *secretsPage) input(msg tea.Msg, w *world, a asker) tea.Cmd {
	k, isKey := msg.(tea.KeyPressMsg)
	switch {
	case p.form != nil && isKey:
		cmd, left := p.form.key(k, w, a)
		if left {
			p.form.wipe()
			p.form = nil
		}
		return cmd
	case p.confirm != nil && isKey:
		cmd, left := p.confirm.key(k)
		if left {
			p.confirm = nil
		}
		return cmd
	case p.form != nil || p.confirm != nil:
		return nil
	}
	keys := p.rows(w)
	matches := func(text string) bool { return len(p.shown(w, text)) > 0 }
	if !p.split.update(msg, keys, matches) && isKey {
		p.list.sync(keys)
		return p.act(k.String(), w, a)
	}
	return nil
}

// act does what a key means for the chosen secret.
func (p *secretsPage) act(name string, w *world, a asker) tea.Cmd {
	i, ok := p.current(w)
	switch {
	case name == "a":
		p.form = newSecretForm(i.Agent)
	case !ok:
	case name == "r" && i.Name != "":
		p.form = newRotateForm(&i)
	case name == "v" && !i.Missing && i.Name != "" && i.Revoked.IsZero():
		p.confirm = &confirm{
			title: "Revoke " + i.Name + " of " + i.Agent,
			text:  "The values of all its versions are destroyed, and their use ends at once, also in what is open. " + losers(len(w.users(i.Agent, i.Name))) + " Its name and history stay.",
			want:  i.Name, cmd: a.revokeSecret(i.Agent, i.Name),
		}
	case name == "d" && !i.Missing && i.Name != "":
		p.confirm = &confirm{
			title: "Delete " + i.Name + " of " + i.Agent,
			text:  "Every version of it is deleted, and its use ends at once. " + losers(len(w.users(i.Agent, i.Name))),
			want:  i.Name, cmd: a.deleteSecret(i.Agent, i.Name),
		}
	case name == "o":
		return requestsOf(i.Name)
	}
	return nil
}

// losers says how many live sessions lose a secret.
func losers(n int) string {
	switch n {
	case 0:
		return "No live session uses it."
	case 1:
		return "One live session loses it."
	}
	return fmt.Sprintf("%d live sessions lose it.", n)
}

var secretColumns = []column{
	{title: "AGENT", width: 9, share: 2},
	{title: "NAME", width: 17, share: 3},
	{title: "V", width: 3, right: true, drop: 1},
	{title: "KIND", width: 12, share: 1, drop: 5},
	{title: "GOES TO", width: 16, share: 3, drop: 2},
	{title: "AGE", width: 4, right: true, drop: 3},
	{title: "EXPIRES", width: 7, right: true, drop: 4},
	{title: "MARKS", width: 8},
}

func (p *secretsPage) view(w *world, s *styles, width, height int) string {
	switch {
	case p.form != nil:
		return p.form.view(s, w, width, height)
	case p.confirm != nil:
		return p.confirm.view(s, width, height)
	case len(w.secrets) == 0:
		return noSecrets(s, width, height)
	}
	infos := p.shown(w, p.filter.text)
	rows := make([]row, 0, len(infos))
	agent := ""
	for i := range infos {
		r := secretRow(&infos[i], w)
		if infos[i].Agent == agent && !s.plain {
			r.cells[0].text = "" // said once for all of an agent's
		}
		agent = infos[i].Agent
		rows = append(rows, r)
	}
	return p.split.view(s, secretColumns, rows, func(string) []fact {
		i, _ := p.current(w)
		return secretFacts(&i, p.versions, w)
	}, width, height)
}

func secretRow(i *control.SecretInfo, w *world) row {
	version, age := strconv.Itoa(i.Version), since(w.now, i.Created, w.still)
	if i.Missing || i.Broken != "" {
		version, age = "-", "-"
	}
	text, m := marks(i, w.now)
	return row{secretKey(i), []cell{
		{i.Agent, moodDim}, {cmp.Or(i.Name, "*"), moodText}, {version, moodDim}, {kind(i), moodDim}, {audience(i), moodText}, {age, moodDim}, expiry(i, w.now), {text, m},
	}}
}

// marks says in a word what a person should know of a secret, the worst first.
func marks(i *control.SecretInfo, now time.Time) (string, mood) {
	switch {
	case i.Broken != "":
		return "broken", moodBad
	case i.Missing:
		return "missing", moodWarn
	case !i.Revoked.IsZero():
		return "revoked", moodBad
	case !i.Expires.IsZero() && !i.Expires.After(now):
		return "expired", moodBad
	case i.Overlap:
		return "overlaps", moodWarn
	case i.Expose != control.ExposeNone:
		return "exposed", moodWarn
	case i.Weak:
		return "weak", moodWarn
	}
	return "", moodText
}

// expiresSoon is how long before a secret expires its date stands out.
const expiresSoon = 14 * 24 * time.Hour

// expiry says in how long a secret expires.
func expiry(i *control.SecretInfo, now time.Time) cell {
	left := i.Expires.Sub(now)
	switch {
	case i.Expires.IsZero():
		return cell{"", moodDim}
	case left <= 0:
		return cell{"past", moodBad}
	case left < expiresSoon:
		return cell{"in " + span(left, true), moodWarn}
	}
	return cell{"in " + span(left, true), moodDim}
}

// kind says in a word or two how a secret is used.
func kind(i *control.SecretInfo) string {
	switch {
	case i.Expose != control.ExposeNone:
		return "variable"
	case i.Inject.Scheme == control.SchemeHeader && len(i.Inject.Fields) > 0:
		return i.Inject.Fields[0].Name
	}
	return i.Inject.String()
}

// audience says where a secret goes, in short.
func audience(i *control.SecretInfo) string {
	switch {
	case i.Missing || i.Broken != "":
		return "-"
	case i.Expose != control.ExposeNone:
		return "inside the VM"
	case len(i.Audience) == 0:
		return "-"
	}
	first := strings.TrimPrefix(i.Audience[0], "https://")
	if len(i.Audience) == 1 {
		return first
	}
	return fmt.Sprintf("%s +%d", first, len(i.Audience)-1)
}

// noSecrets leads by the hand to the first secret.
func noSecrets(s *styles, width, height int) string {
	step := func(n, title, text string) string {
		return s.accent.Render(n) + "  " + s.title.Render(title) + "\n   " + s.dim.Render(text) + "\n"
	}
	return centred(strings.Join([]string{
		s.title.Render("No secret is set yet"), "",
		step("a", "add the first one", "it is sealed to the broker's key; nobody reads it back"),
		step("2", "run an agent with it, in another terminal", "torno run --agent NAME -- COMMAND"),
		step("3", "watch here what it asks for", "sessions, requests and why each was decided so"),
	}, "\n"), width, height)
}
