package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"time"

	"torno.internal/broker/internal/redact"
	"torno.internal/broker/plugin"
	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// checkMessage is what a signer signs when it is checked.
const checkMessage = "torno plugin check"

// Check starts a plugin apart from the one that serves, tries it and stops it again.
func (h *Host) Check(ctx context.Context, req control.PluginCheck) (control.PluginReport, error) {
	s := h.plugins[req.Name]
	if s == nil {
		return control.PluginReport{}, &Error{Plugin: req.Name, Code: CodeUnknown, Hint: "torno plugin list shows those that broker.toml declares"}
	}
	c := &checking{s: s, req: req, report: control.PluginReport{Name: req.Name, OK: true}, output: &tail{}}
	defer c.wipe()
	in, err := s.launch(ctx, c.output, c.done)
	if err != nil {
		c.failed("start", err)
		return c.finish(), nil
	}
	defer in.stop(true)
	if req.Ref != "" {
		ctx, cancel := context.WithTimeout(ctx, s.timeout())
		defer cancel()
		c.try(ctx, in)
	}
	in.stop(true)
	return c.finish(), nil
}

// A checking is one check that is under way.
type checking struct {
	s      *supervisor
	req    control.PluginCheck
	report control.PluginReport
	output *tail
	known  []secret.Value // that must not be in the output
}

func (c *checking) done(step, detail string) {
	c.report.Steps = append(c.report.Steps, control.PluginStep{What: step, OK: true, Detail: detail})
}

func (c *checking) failed(step string, err error) {
	st := control.PluginStep{What: step, Detail: err.Error()}
	var e *Error
	if errors.As(err, &e) {
		st.Hint = e.Hint
	}
	c.report.OK = false
	c.report.Steps = append(c.report.Steps, st)
}

// try asks for the secret, or for a signature.
func (c *checking) try(ctx context.Context, in *instance) {
	if c.s.config.Kind == control.PluginSigner {
		signature, err := in.Sign(ctx, plugin.SignRequest{Key: c.req.Ref, Algorithm: c.req.Alg, Message: []byte(checkMessage)})
		if err != nil {
			c.failed("sign", in.explain(c.s, err))
			return
		}
		c.done("sign", fmt.Sprintf("%d bytes by %s", len(signature), c.req.Alg))
		return
	}
	sec, err := in.Fetch(ctx, c.req.Ref)
	if err != nil {
		c.failed("fetch", in.explain(c.s, err))
		return
	}
	c.known = append(c.known, secret.New(sec.Value))
	detail := fmt.Sprintf("%d bytes", len(sec.Value))
	if sec.Version != "" {
		detail += ", version " + sec.Version
	}
	if !sec.Expires.IsZero() {
		detail += ", expires " + sec.Expires.UTC().Format(time.RFC3339)
	}
	c.done("fetch", detail)
}

// finish adds what the plugin wrote, without the secrets that we know: what was fetched, and what the plugin was told.
func (c *checking) finish() control.PluginReport {
	text, all := c.output.take()
	defer secret.Wipe(text)
	var secrets []redact.Secret
	add := func(b []byte) {
		v := secret.New(append([]byte(nil), b...))
		c.known = append(c.known, v)
	}
	if config, err := c.s.readConfig(); err == nil {
		for _, content := range config.Files {
			add(content)
		}
		wipeFiles(config.Files)
	}
	for _, v := range c.s.config.Env {
		if !control.IsWeak([]byte(v), nil) {
			add([]byte(v))
		}
	}
	for _, v := range c.known {
		secrets = append(secrets, redact.Secret{Value: v})
	}
	matcher := redact.NewMatcher(secrets)
	defer matcher.Wipe()
	c.report.Output, _ = matcher.Text(string(text))
	if all > int64(len(text)) {
		c.report.Output = "[…]" + c.report.Output
	}
	return c.report
}

func (c *checking) wipe() {
	for _, v := range c.known {
		v.Wipe()
	}
	c.output.wipe()
}
