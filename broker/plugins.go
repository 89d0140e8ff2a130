package broker

import (
	"context"
	"errors"
	"net/http"

	"torno.internal/broker/internal/audit"
	"torno.internal/broker/internal/confine"
	"torno.internal/broker/internal/pluginhost"
	"torno.internal/protocol/control"
)

// PluginExecCommand is the name of the hidden command by which the program that a broker runs in becomes a plugin. The
// program calls ExecPlugin where it is its first argument.
const PluginExecCommand = confine.Command

// ExecPlugin becomes a plugin. It returns only if it could not, with an exit status.
func ExecPlugin() int { return confine.Exec() }

// notePlugin records what happens to a plugin's process.
func (b *Broker) notePlugin(e pluginhost.Event) {
	r := &audit.Record{Event: e.What, Plugin: e.Plugin}
	if e.Err != nil {
		r.Reason = string(e.Err.Code)
		b.log.Warn("a plugin failed", "plugin", e.Plugin, "code", r.Reason, "err", e.Err)
	} else {
		b.log.Info("plugin", "plugin", e.Plugin, "event", e.What)
	}
	b.recordOwn(r)
}

func (b *Broker) listPlugins(*http.Request) ([]control.PluginInfo, error) {
	return b.plugins.List(), nil
}

// checkPlugin tries a plugin.
func (b *Broker) checkPlugin(ctx context.Context, req control.PluginCheck) (control.PluginReport, error) {
	r, err := b.plugins.Check(ctx, req)
	return r, pluginError(err)
}

// pluginError says to an operator what is wrong with a plugin.
func pluginError(err error) error {
	var e *pluginhost.Error
	if !errors.As(err, &e) {
		return err
	}
	code := control.CodeInvalid
	if e.Code == pluginhost.CodeUnknown {
		code = control.CodeNotFound
	}
	return &control.Error{Code: code, Message: e.Error(), Hint: e.Hint}
}
