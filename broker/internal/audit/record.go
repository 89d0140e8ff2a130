package audit

import (
	"time"

	"torno.internal/broker/internal/redact"
	"torno.internal/protocol"
)

// How much is kept of what others choose, in bytes before it is escaped. All of it together fits a line.
const (
	maxPath    = 2 << 10 // of a path; of a longer one the SHA-256 of the whole stands beside
	maxDialled = 64      // of an address
	maxName    = 128     // of a field's name
	maxValue   = 256     // of a field's value
	maxValues  = 4 << 10 // of all values; behind them fields have names alone
	maxRule    = 2 << 10 // of a rule
	maxFetched = 128     // of a source's version
)

// How much is kept in an end, in bytes as they are written: it has to fit into the room that was kept for it.
const (
	maxEndReason  = 64
	maxEndAddress = 96
	maxEndVia     = 288 // a name of 253 and a port
)

// A Record says what is about to happen, or what was refused, or what an operator did. Empty members are
// left out.
type Record struct {
	Session, Agent      string
	Event               string // of events: what happened
	By                  string // of events: the process that asked for it, or as whom somebody logs in
	Method, Protocol    string
	Scheme, Authority   string
	Path                string          // with the query
	Fields              protocol.Fields // all names are kept, values of an allow-list alone
	Dialled             string          // the address that the workload connected to
	Verdict, List, Rule string          // the policy's decision
	Approval            string          // of a request that a person was asked about: what they said, and as what
	Reason              string          // why it was refused
	Secret              string          // the secret used, or that the event is about
	Version             int
	Fetched             string // which version of it, in the words of the source that has it
	Plugin              string // that the event is about
	Placeholders        int    // how many stand in the request's head
	SHA256              string // of what the event is about
	Commit              uint64 // of the store, which the event is about; 0: of none
	Manifest            string // SHA-256 of the store's manifest after it, hex
	Count               int64

	Guard, Redact *redact.Matcher // find values that must not be in the path or in a field; nil: there are none

	Free bool // the broker's own word on the session, which a flood of the session's must not drown: it costs no budget
}

// An Outcome says how an exchange ended.
type Outcome struct {
	Status             int
	Reason             string
	BytesUp, BytesDown int64         // content
	Dial               time.Duration // until a new connection stood; 0: none was needed
	Head               time.Duration // until the response's head was there; 0: it never was
	Duration           time.Duration
	Upstream           string // address that was connected to
	Via                string // the proxy that it was, host:port; empty: none
	Aborted            bool   // the response did not end as it should
	Masked             int    // runs of secrets that were masked in the response
	Placeholders       int    // how many stood in the request's content, in plain form
	interrupted        bool   // the broker died meanwhile
}

// shownFields are the fields whose values are recorded: they say what kind of request it was and are not
// credentials in any scheme that we know.
var shownFields = map[string]bool{
	"accept": true, "accept-encoding": true, "accept-language": true, "cache-control": true,
	"content-encoding": true, "content-length": true, "content-type": true, "expect": true,
	"range": true, "te": true, "user-agent": true, "anthropic-version": true, "openai-beta": true,
}

func (r *Record) appendTo(b []byte) []byte {
	b = appendPair(b, "session", r.Session)
	b = appendPair(b, "agent", r.Agent)
	b = appendPair(b, "event", r.Event)
	b = appendPair(b, "by", r.By)
	b = appendPair(b, "method", r.Method)
	b = appendPair(b, "protocol", r.Protocol)
	b = appendPair(b, "scheme", r.Scheme)
	b = appendPair(b, "authority", r.Authority)
	b = appendPath(b, r.clean(r.Path))
	b = r.appendFields(b)
	b = appendPair(b, "dialled", clip(r.Dialled, maxDialled))
	b = appendPair(b, "verdict", r.Verdict)
	b = appendPair(b, "list", r.List)
	b = appendPair(b, "rule", clip(r.Rule, maxRule))
	b = appendPair(b, "approval", clip(r.Approval, maxValue))
	b = appendPair(b, "reason", clip(r.Reason, maxValue))
	b = appendPair(b, "secret", r.Secret)
	b = appendCount(b, "version", int64(r.Version))
	b = appendPair(b, "fetched", clip(r.Fetched, maxFetched))
	b = appendPair(b, "plugin", r.Plugin)
	b = appendCount(b, "placeholders", int64(r.Placeholders))
	b = appendPair(b, "sha256", r.SHA256)
	b = appendCommit(b, r.Commit, r.Manifest)
	return appendCount(b, "count", r.Count)
}

func appendCommit(b []byte, number uint64, manifest string) []byte {
	return appendPair(appendCount(b, "commit", int64(number)), "manifest", manifest)
}

func (o *Outcome) appendTo(b []byte, id ID) []byte {
	b = appendNumber(b, "begin", int64(id))
	if o.interrupted {
		return appendFlag(b, "interrupted", true)
	}
	b = appendClipped(b, "reason", o.Reason, maxEndReason)
	b = appendNumber(b, "status", int64(o.Status))
	b = appendNumber(b, "up", o.BytesUp)
	b = appendNumber(b, "down", o.BytesDown)
	b = appendCount(b, "dial_us", o.Dial.Microseconds())
	b = appendCount(b, "head_us", o.Head.Microseconds())
	b = appendNumber(b, "us", o.Duration.Microseconds())
	b = appendClipped(b, "upstream", o.Upstream, maxEndAddress)
	b = appendClipped(b, "via", o.Via, maxEndVia)
	b = appendCount(b, "masked", int64(o.Masked))
	b = appendCount(b, "placeholders", int64(o.Placeholders))
	return appendFlag(b, "aborted", o.Aborted)
}

func clip(s string, n int) string { return s[:min(len(s), n)] }

// clean masks what must not be in the audit.
func (r *Record) clean(s string) string {
	if r.Guard != nil {
		s, _ = r.Guard.Text(s)
	}
	if r.Redact != nil {
		s, _ = r.Redact.Text(s)
	}
	return s
}

// appendFields appends every field's name, and the value of those in shownFields while there is room.
func (r *Record) appendFields(b []byte) []byte {
	fields := r.Fields
	if len(fields) == 0 {
		return b
	}
	b = append(b, `,"fields":[`...)
	room := maxValues
	for i := range fields {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '"')
		b = appendEscaped(b, clip(fields[i].Name, maxName), maxLine)
		if !shownFields[fields[i].Name] {
			b = append(b, '"')
			continue
		}
		if value := clip(r.clean(fields[i].Value), maxValue); len(value) <= room {
			b = append(b, ": "...)
			b = appendEscaped(b, value, maxLine)
			room -= len(value)
		}
		b = append(b, '"')
	}
	return append(b, ']')
}
