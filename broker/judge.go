package broker

import (
	"errors"
	"fmt"
	"strings"

	"torno.internal/broker/internal/audit"
	"torno.internal/broker/internal/policy"
	"torno.internal/protocol"
)

// judge identifies the authority, decides and selects the credential. Its error is a
// *protocol.RefusedError.
func (x *exchange) judge() error {
	x.dialled = x.req.Fields.Get(protocol.FieldDialled)
	x.http2 = x.req.Fields.Get(protocol.FieldHTTP) == "2"
	x.req.Fields = x.req.Fields.DelFunc(func(f protocol.Field) bool { return strings.HasPrefix(f.Name, "torno-") })
	connect := x.connect()
	scheme := x.req.Scheme
	switch {
	case x.req.Protocol != "" && x.req.Protocol != protocolWebSocket:
		return protocol.Refuse(protocol.ReasonUnsupported, fmt.Errorf("extended CONNECT for %q", x.req.Protocol))
	case connect: // has neither scheme nor path
	case scheme != "https" && scheme != "http":
		return protocol.Refuse(protocol.ReasonBadRequest, fmt.Errorf("scheme %q", scheme))
	case x.req.Method == "TRACE":
		return protocol.Refuse(protocol.ReasonUnsupported, errors.New("TRACE would echo the credential"))
	}
	var err error
	x.authority, err = protocol.ParseAuthority(x.req.Authority, protocol.DefaultPort(scheme))
	if err != nil {
		return protocol.Refuse(protocol.ReasonBadAuthority, err)
	}
	x.name = x.authority.String()
	if x.authority.Host == protocol.SelfTestAuthority {
		return protocol.Refuse(protocol.ReasonSelfTest, nil)
	}
	if x.s.suspended.Load() {
		return protocol.Refuse(protocol.ReasonReflection, nil)
	}
	if x.all, err = x.readings(); err != nil {
		return err
	}
	if err := x.decide(connect); err != nil {
		return x.plainHTTP(err)
	}
	if x.decision.Verdict == policy.Ask && !x.asks {
		x.approval = askGranted
	}
	if connect {
		return x.judgeTunnel()
	}
	x.cloud = x.asksMetadata()
	return x.selectSecret()
}

// selectSecret selects the credential and what guards the answer.
func (x *exchange) selectSecret() error {
	scheme := x.req.Scheme
	x.s.readyFor(x.authority)
	var misplaced, err error
	x.use, misplaced, err = x.s.secrets().Select(x.authority, scheme, x.req.Fields, x.req.Path)
	if x.guarded = x.s.guarded(x.authority, scheme); x.guarded != nil && !x.detached {
		x.req.Fields = x.guarded.prepare(x.req.Fields)
	}
	x.bare = x.use != nil && !x.covered()
	if misplaced != nil {
		if refused := x.misplaced(misplaced); refused != nil {
			return refused
		}
	}
	if err != nil {
		return err
	}
	return x.planSigning()
}

// verdict turns the policy's decision into a refusal, or nil.
func (x *exchange) verdict(connect bool) error {
	switch d := x.decision; {
	case d.Verdict == policy.Deny:
		return protocol.Refuse(d.Reason, nil)
	case connect != (d.Verdict == policy.Tunnel):
		return protocol.Refuse(protocol.ReasonDenied, errors.New("tunnel rules are for CONNECT, and CONNECT for tunnel rules"))
	}
	return nil
}

// plainHTTP returns a better reason than err, a denial, where only the scheme is at fault: the host is
// one that a secret is bound to, over https.
func (x *exchange) plainHTTP(err error) error {
	if x.req.Scheme != "http" || x.decision.List != policy.ListDefault {
		return err
	}
	if _, _, insecure := x.s.secrets().Select(x.authority, "http", nil, ""); insecure != nil {
		return insecure
	}
	return err
}

// record is what the audit keeps of the request.
func (x *exchange) record() *audit.Record {
	r := &audit.Record{
		Session: x.s.id, Agent: x.s.agent,
		Method: x.method(), Protocol: x.req.Protocol, Scheme: x.req.Scheme, Authority: x.name, Path: x.req.Path,
		Fields: x.req.Fields, Dialled: x.dialled,
		Verdict: x.decision.Verdict.String(), List: x.decision.List, Rule: x.decision.Rule, Approval: x.approval,
		Placeholders: x.s.secrets().Placeholders(x.req.Path, x.req.Fields), Redact: x.s.exposed,
	}
	if x.guarded != nil {
		r.Guard = x.guarded.matcher
	}
	if x.name == "" {
		r.Authority = x.req.Authority
	}
	if x.use != nil {
		r.Path = x.use.StripTarget(r.Path)
	}
	if x.role != nil {
		r.Secret, r.Version = x.role.Name, x.role.Version
	}
	if x.use != nil && !x.bare {
		r.Secret, r.Version, r.Fetched = x.use.Name, x.use.Version, x.use.Fetched()
	}
	return r
}

// connect reports whether a tunnel is asked for.
func (x *exchange) connect() bool { return x.req.Method == "CONNECT" && x.req.Protocol == "" }

// method is the request's, as people know it: a WebSocket's handshake is a GET.
func (x *exchange) method() string {
	if x.req.Protocol != "" {
		return "GET"
	}
	return x.req.Method
}
