package audit

import (
	"crypto/sha256"
	"strconv"
	"strings"
	"time"

	"torno.internal/protocol"
)

// How much is kept of what others choose, in bytes before it is escaped. All of it together fits a line.
const (
	maxPath    = 2 << 10 // of a path; of a longer one the SHA-256 of the whole stands beside
	maxDialled = 64      // of an address
	maxName    = 128     // of a field's name
	maxValue   = 256     // of a field's value
	maxValues  = 4 << 10 // of all values; behind them fields have names alone
)

// A Record says what is about to happen, or what was refused, or what an operator did. Empty members are
// left out.
type Record struct {
	Session, Agent            string
	Event                     string // of events: what happened
	Method, Scheme, Authority string
	Path                      string          // with the query
	Fields                    protocol.Fields // all names are kept, values of an allow-list alone
	Dialled                   string          // the address that the workload connected to
	Verdict, List, Rule       string          // the policy's decision
	Reason                    string          // why it was refused
	Secret                    string          // the secret used
	Version                   int
	Free                      bool   // costs the session's budget nothing: the broker's own word, which nobody can ask for at will
	Commit                    uint64 // of the store, which the event is about; 0: of none
	Manifest                  string // SHA-256 of the store's manifest after it, hex
}

// An Outcome says how an exchange ended.
type Outcome struct {
	Status             int
	Reason             string
	BytesUp, BytesDown int64 // content
	Duration           time.Duration
	Upstream           string // address that was connected to
	Via                string // the proxy that it was, host:port; empty: none
	Aborted            bool   // the response did not end as it should
	Masked             int    // runs of secrets that were masked in the response
	interrupted        bool   // the broker died meanwhile
}

// shownFields are the fields whose values are recorded: they say what kind of request it was and are not
// credentials in any scheme that we know.
var shownFields = map[string]bool{
	"accept": true, "accept-encoding": true, "accept-language": true, "cache-control": true,
	"content-encoding": true, "content-length": true, "content-type": true, "expect": true,
	"range": true, "te": true, "user-agent": true, "anthropic-version": true, "openai-beta": true,
}

// maskedQuery are the query parameters whose values are credentials, in lower case.
var maskedQuery = map[string]bool{
	"access_token": true, "api_key": true, "api-key": true, "apikey": true, "auth": true, "client_secret": true,
	"code": true, "id_token": true, "key": true, "password": true, "refresh_token": true, "secret": true,
	"sig": true, "signature": true, "token": true, "x-amz-credential": true, "x-amz-security-token": true,
	"x-amz-signature": true, "x-goog-credential": true, "x-goog-signature": true,
}

const masked = "***"

func (r *Record) appendTo(b []byte) []byte {
	b = appendPair(b, "session", r.Session)
	b = appendPair(b, "agent", r.Agent)
	b = appendPair(b, "event", r.Event)
	b = appendPair(b, "method", r.Method)
	b = appendPair(b, "scheme", r.Scheme)
	b = appendPair(b, "authority", r.Authority)
	b = appendPath(b, r.Path)
	b = appendFields(b, r.Fields)
	b = appendPair(b, "dialled", clip(r.Dialled, maxDialled))
	b = appendPair(b, "verdict", r.Verdict)
	b = appendPair(b, "list", r.List)
	b = appendPair(b, "rule", r.Rule)
	b = appendPair(b, "reason", r.Reason)
	b = appendPair(b, "secret", r.Secret)
	if r.Version != 0 {
		b = appendNumber(b, "version", int64(r.Version))
	}
	if r.Commit != 0 {
		b = appendPair(appendNumber(b, "commit", int64(r.Commit)), "manifest", r.Manifest)
	}
	return b
}

func (o *Outcome) appendTo(b []byte, id ID) []byte {
	b = appendNumber(b, "begin", int64(id))
	if o.interrupted {
		return append(b, `,"interrupted":true`...)
	}
	b = appendNumber(b, "status", int64(o.Status))
	b = appendPair(b, "reason", clip(o.Reason, 128))
	b = appendNumber(b, "up", o.BytesUp)
	b = appendNumber(b, "down", o.BytesDown)
	b = appendNumber(b, "us", o.Duration.Microseconds())
	b = appendPair(b, "upstream", clip(o.Upstream, 128))
	b = appendPair(b, "via", clip(o.Via, 128))
	if o.Masked > 0 {
		b = appendNumber(b, "masked", int64(o.Masked))
	}
	if o.Aborted {
		b = append(b, `,"aborted":true`...)
	}
	return b
}

func clip(s string, n int) string { return s[:min(len(s), n)] }

// appendPath appends the path with credentials in the query masked. A long path is cut, and the SHA-256
// of the whole stands beside it.
func appendPath(b []byte, path string) []byte {
	if path == "" {
		return b
	}
	kept := clip(path, maxPath)
	b = append(b, `,"path":"`...)
	before, query, found := strings.Cut(kept, "?")
	b = appendEscaped(b, before)
	for i := 0; found; i++ {
		var pair string
		pair, query, found = strings.Cut(query, "&")
		if i == 0 {
			b = append(b, '?')
		} else {
			b = append(b, '&')
		}
		name, _, hasValue := strings.Cut(pair, "=")
		if hasValue && isMasked(name) {
			b = append(appendEscaped(b, name), "="+masked...)
		} else {
			b = appendEscaped(b, pair)
		}
	}
	b = append(b, '"')
	if len(path) > maxPath {
		sum := sha256.Sum256([]byte(path))
		b = append(b, `,"path_bytes":`...)
		b = strconv.AppendInt(b, int64(len(path)), 10)
		b = append(b, `,"path_sha256":"`...)
		b = appendHex(b, sum[:])
		b = append(b, '"')
	}
	return b
}

// isMasked looks a parameter's name up without regard to case, and masks names that are encoded: a
// server decodes them, so they may be any.
func isMasked(name string) bool {
	if len(name) > 64 || strings.IndexByte(name, '%') >= 0 {
		return true
	}
	var lower [64]byte
	for i := range len(name) {
		c := name[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		lower[i] = c
	}
	return maskedQuery[string(lower[:len(name)])]
}

// appendFields appends every field's name, and the value of those in shownFields while there is room.
func appendFields(b []byte, fields protocol.Fields) []byte {
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
		b = appendEscaped(b, clip(fields[i].Name, maxName))
		if value := clip(fields[i].Value, maxValue); shownFields[fields[i].Name] && len(value) <= room {
			b = append(b, ": "...)
			b = appendEscaped(b, value)
			room -= len(value)
		}
		b = append(b, '"')
	}
	return append(b, ']')
}
