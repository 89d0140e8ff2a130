package tui

import (
	"context"
	"net/url"
	"time"

	tea "charm.land/bubbletea/v2"

	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

const (
	askWait   = 10 * time.Second // for one answer of the broker
	pollEvery = 2 * time.Second
	pollPause = 250 * time.Millisecond // between questions, however much happens
	checkWait = 10 * time.Minute       // for checking all of a store or an audit
)

// What commands tell.
type (
	// polledMsg is the state of the broker, or why there is none to have.
	polledMsg struct {
		health    control.Health
		key       control.KeyInfo
		secrets   []control.SecretInfo
		sessions  []control.SessionInfo
		approvals []control.Approval
		err       error
	}
	// historyMsg are the versions of one secret.
	historyMsg struct {
		of       string // as secretKey names it
		versions []control.SecretVersion
		err      error
	}
	presetsMsg []control.Preset
	tickMsg    time.Time
	// doneMsg tells how something ended that a person wanted.
	doneMsg struct {
		what string // "ACME_TOKEN: deleted"
		err  error
	}
	// setMsg tells how setting a secret ended.
	setMsg struct {
		meta control.Meta
		err  error
	}
	checkedMsg struct {
		store *control.StoreVerdict
		audit *control.AuditVerdict
		err   error
	}
	startedMsg struct{ err error }
	// requestsOfMsg asks to see the requests of a session, a secret or an upstream.
	requestsOfMsg string
	crashMsg      struct{ crash *CrashError }
)

// An asker makes the commands that ask the broker. They end with ctx.
type asker struct {
	ctx    context.Context
	broker Broker
}

// command makes one command of ask, which has wait to end. A mistake of ours in it ends the desk in order.
func (a asker) command(wait time.Duration, ask func(context.Context) tea.Msg) tea.Cmd {
	return func() (msg tea.Msg) {
		defer func() {
			if r := recover(); r != nil {
				msg = crashMsg{crashed(r)}
			}
		}()
		ctx, cancel := context.WithTimeout(a.ctx, wait)
		defer cancel()
		return ask(ctx)
	}
}

// poll asks for all that the pages show.
func (a asker) poll() tea.Cmd {
	return a.command(askWait, func(ctx context.Context) tea.Msg {
		var m polledMsg
		for _, q := range []struct {
			path string
			out  any
		}{
			{control.PathHealth, &m.health}, {control.PathKey, &m.key},
			{control.PathSecrets, &m.secrets}, {control.PathSessions, &m.sessions},
			{control.PathApprovals, &m.approvals},
		} {
			if m.err = a.broker.Do(ctx, "GET", q.path, nil, q.out); m.err != nil {
				return m
			}
		}
		return m
	})
}

func (a asker) presets() tea.Cmd {
	return a.command(askWait, func(ctx context.Context) tea.Msg {
		var m presetsMsg
		if a.broker.Do(ctx, "GET", control.PathPresets, nil, &m) != nil {
			return presetsMsg(nil) // the form asks for hosts instead
		}
		return m
	})
}

func (a asker) history(agent, name string) tea.Cmd {
	return a.command(askWait, func(ctx context.Context) tea.Msg {
		m := historyMsg{of: agent + "/" + name}
		query := url.Values{"agent": {agent}, "name": {name}}
		m.err = a.broker.Do(ctx, "GET", control.PathHistory+"?"+query.Encode(), nil, &m.versions)
		return m
	})
}

// requestsOf has the requests shown that hold a text.
func requestsOf(text string) tea.Cmd { return func() tea.Msg { return requestsOfMsg(text) } }

// do asks for what a person wanted; what says it when it is done.
func (a asker) do(method, path, what string) tea.Cmd {
	return a.doWith(method, path, nil, what)
}

func (a asker) doWith(method, path string, in any, what string) tea.Cmd {
	return a.command(askWait, func(ctx context.Context) tea.Msg {
		return doneMsg{what, a.broker.Do(ctx, method, path, in, nil)}
	})
}

func (a asker) revokeSecret(agent, name string) tea.Cmd {
	query := url.Values{"agent": {agent}, "name": {name}}
	return a.do("POST", control.PathRevoke+"?"+query.Encode(), name+": revoked")
}

func (a asker) decide(d control.ApprovalDecision, what string) tea.Cmd {
	return a.doWith("POST", control.PathApprovals, d, what)
}

func (a asker) deleteSecret(agent, name string) tea.Cmd {
	query := url.Values{"agent": {agent}, "name": {name}}
	return a.do("DELETE", control.PathSecrets+"?"+query.Encode(), name+": deleted")
}

func (a asker) revokeSession(id string) tea.Cmd {
	return a.do("DELETE", control.PathSession+url.PathEscape(id), "session "+id+": revoked")
}

func (a asker) resumeSession(id string) tea.Cmd {
	return a.do("POST", control.PathSession+url.PathEscape(id)+"/resume", "session "+id+": resumed")
}

// set hands a secret's value over, and wipes it whatever comes of that.
func (a asker) set(m control.Meta, value secret.Value) tea.Cmd {
	return a.command(askWait, func(ctx context.Context) tea.Msg {
		defer value.Wipe()
		meta, err := a.broker.Set(ctx, m, value)
		return setMsg{meta, err}
	})
}

// check has the broker check its store and its audit.
func (a asker) check() tea.Cmd {
	return a.command(checkWait, func(ctx context.Context) tea.Msg {
		var m checkedMsg
		var keys control.AuditKeys
		if m.err = a.broker.Do(ctx, "POST", control.PathStore+"/verify", nil, &m.store); m.err != nil {
			return m
		}
		if m.err = a.broker.Do(ctx, "GET", control.PathAuditKeys, nil, &keys); m.err != nil {
			return m
		}
		m.err = a.broker.Do(ctx, "POST", control.PathAuditVerify, control.AuditCheck{Keys: &keys}, &m.audit)
		return m
	})
}
