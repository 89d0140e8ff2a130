package tui

import (
	"fmt"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

func ago(d time.Duration) time.Time { return noon.Add(-d) }

// populate fills a server with what a busy morning leaves behind.
func populate(f *fakeServer) {
	f.health = control.Health{Version: "0.9.0", Protocol: 3, PID: 4711, Started: ago(3*time.Hour + 12*time.Minute), StateDir: "/home/ada/.local/state/torno", Sessions: 3}
	bearer := control.Injector{Scheme: control.SchemeBearer}
	f.secrets = []control.SecretInfo{
		{Meta: control.Meta{Agent: "research", Name: "ANTHROPIC_API_KEY", Version: 3, Preset: "anthropic", Audience: []string{"https://api.anthropic.com"},
			Inject: control.Injector{Scheme: control.SchemeHeader, Fields: []control.FieldTemplate{{Name: "x-api-key", Value: "{ANTHROPIC_API_KEY}"}}}, Created: ago(26 * time.Hour)}},
		{Meta: control.Meta{Agent: "research", Name: "DATABASE_URL", Version: 1, Expose: control.ExposeEnv, Created: ago(9 * 24 * time.Hour)}},
		{Meta: control.Meta{Agent: "billing", Name: "STRIPE_KEY", Version: 2, Audience: []string{"https://api.stripe.example", "https://files.stripe.example"}, Inject: bearer, Rotation: control.RotationFollow, Created: ago(40 * time.Minute), Expires: noon.Add(6 * 24 * time.Hour), By: "ada, by desk"}, Uses: 812, LastUsed: ago(6 * time.Second)},
		{Meta: control.Meta{Agent: "billing", Name: "LEGACY_PIN", Version: 1, Audience: []string{"https://old.example"}, Inject: bearer, Weak: true, Created: ago(300 * 24 * time.Hour)}},
		{Meta: control.Meta{Agent: "billing", Name: "TWILIO_TOKEN", Version: 4, Audience: []string{"https://api.twilio.example"}, Inject: control.Injector{Scheme: control.SchemeBasic}, Created: ago(80 * 24 * time.Hour)}, Revoked: ago(time.Hour)},
		{Meta: control.Meta{Agent: "billing", Name: "SLACK_TOKEN"}, Missing: true},
		{Meta: control.Meta{Agent: "research", Name: "GITHUB_TOKEN", Version: 1}, Broken: "version 1 of GITHUB_TOKEN of research was changed outside of torno"},
	}
	f.sessions = []control.SessionInfo{
		{ID: "01m8588eq2zh04vw8qn948688n", Agent: "research", Isolation: protocol.IsolationMicroVM, State: stateLive, Created: ago(14 * time.Minute),
			Identity: "the socket of this session", Containment: "a VM without a network card", Argv: []string{"claude", "--continue"},
			Secrets:  []control.SecretUse{{Name: "ANTHROPIC_API_KEY", Version: 3, Placeholder: true}, {Name: "DATABASE_URL", Version: 1, Expose: control.ExposeEnv}},
			Requests: 128, Refused: 4, BytesUp: 3 << 20, BytesDown: 41 << 20, Streams: 2, Last: "POST api.anthropic.com/v1/messages 200",
			Machine: &control.Machine{Kind: "microvm", Accel: "kvm", Image: "base", Kernel: "6.12.63", Memory: 2 << 30, CPUs: 2}},
		{ID: "01m8587zzzzh04vw8qn9k3xw7t", Agent: "billing", Isolation: protocol.IsolationMicroVM, State: stateSuspended, Created: ago(55 * time.Minute),
			Identity: "the socket of this session", Containment: "a VM without a network card", Argv: []string{"python3", "invoice.py"},
			Secrets: []control.SecretUse{{Name: "STRIPE_KEY", Version: 1}}, Requests: 33, Refused: 9, Last: "GET api.stripe.example/v1/charges 403 reflection"},
		{ID: "01m8587aaaah04vw8qn9qqqqqq", Agent: "research", Isolation: protocol.IsolationNamespace, State: stateWaiting, Created: ago(4 * time.Second), Argv: []string{"bash"}},
	}
	f.records = records()
	length := int64(4211)
	f.waiting = []control.Approval{
		{ID: "7", Session: "01m8587zzzzh04vw8qn9k3xw7t", Agent: "billing", Asked: ago(272 * time.Second), Expires: noon.Add(28 * time.Second), Method: "POST", Scheme: "https",
			Authority: "api.stripe.example:443", Path: "/v1/refunds", ContentType: "application/x-www-form-urlencoded", ContentLength: &length, List: "ask", Rule: "POST api.stripe.example/v1/refunds",
			Secret: "STRIPE_KEY", Version: 1, Grant: "POST api.stripe.example/v1/refunds"},
		{ID: "9", Session: "01m8588eq2zh04vw8qn948688n", Agent: "research", Asked: ago(20 * time.Second), Expires: noon.Add(280 * time.Second), Method: "DELETE", Scheme: "https",
			Authority: "api.github.com:443", Path: "/repos/ada/engine/git/refs/heads/main", List: "ceiling", Rule: "DELETE api.github.com/**", Also: "POST, because of x-http-method-override"},
	}
}

// records are the audit of the last minutes.
func records() []control.AuditRecord {
	var all []control.AuditRecord
	add := func(r control.AuditRecord) uint64 {
		r.Seq = uint64(len(all) + 1)
		all = append(all, r)
		return r.Seq
	}
	add(control.AuditRecord{Time: ago(3 * time.Hour), Type: control.AuditEvent, Event: "broker_started"})
	add(control.AuditRecord{Time: ago(2 * time.Hour), Type: control.AuditEvent, Event: "proof", Verdict: "clean", Session: "01m8588eq2zh04vw8qn948688n", Agent: "research"})
	for i := range 40 {
		at := ago(590*time.Second - time.Duration(i*i*3/8)*time.Second)
		seq := add(control.AuditRecord{Time: at, Type: control.AuditBegin, Session: "01m8588eq2zh04vw8qn948688n", Agent: "research", Method: "POST", Scheme: "https",
			Authority: "api.anthropic.com:443", Path: "/v1/messages", Verdict: "allow", List: "audience", Secret: "ANTHROPIC_API_KEY", Version: 3, Dialled: "100.64.0.1:443"})
		add(control.AuditRecord{Time: at.Add(time.Second), Type: control.AuditEnd, Begin: seq, Status: 200, Up: 4096, Down: 20000 + int64(i)*700,
			HeadMicros: 180_000 + int64(i*i%17)*40_000, Micros: 2_400_000, DialMicros: 12_000, Upstream: "203.0.113.7:443"})
		if i%9 == 4 {
			add(control.AuditRecord{Time: at.Add(2 * time.Second), Type: control.AuditRefused, Session: "01m8588eq2zh04vw8qn948688n", Agent: "research", Method: "GET", Scheme: "https",
				Authority: fmt.Sprintf("tracker%d.example:443", i%2), Path: "/collect?id=7", Verdict: "deny", List: "default", Reason: "denied"})
		}
	}
	add(control.AuditRecord{Time: ago(9 * time.Second), Type: control.AuditCheckpoint})
	add(control.AuditRecord{Time: ago(6 * time.Second), Type: control.AuditRefused, Session: "01m8587zzzzh04vw8qn9k3xw7t", Agent: "billing", Method: "DELETE", Scheme: "https",
		Authority: "api.stripe.example:443", Path: "/v1/customers/cus_81", Verdict: "deny", List: "deny", Rule: "DELETE api.stripe.example/**", Reason: "denied_by_rule"})
	seq := add(control.AuditRecord{Time: ago(4 * time.Second), Type: control.AuditBegin, Session: "01m8588eq2zh04vw8qn948688n", Agent: "research", Method: "GET", Scheme: "https",
		Authority: "api.github.com:443", Path: "/repos/ada/engine/issues?state=open", Verdict: "allow", List: "allow", Rule: "GET api.github.com"})
	add(control.AuditRecord{Time: ago(3 * time.Second), Type: control.AuditEnd, Begin: seq, Status: 502, HeadMicros: 700_000, Micros: 800_000, Upstream: "198.51.100.4:443", Masked: 2})
	add(control.AuditRecord{Time: ago(time.Second), Type: control.AuditBegin, Session: "01m8588eq2zh04vw8qn948688n", Agent: "research", Method: "GET", Scheme: "https", Protocol: "websocket",
		Authority: "stream.example:443", Path: "/live", Verdict: "allow", List: "allow", Rule: "stream.example"})
	return all
}
