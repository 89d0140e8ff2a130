package audit

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"torno.internal/protocol/control"
)

// A filter is a control.AuditFilter that was checked.
type filter struct {
	control.AuditFilter
	host, port string // of Host; port empty: any
	low, high  int    // of Status
}

func newFilter(f control.AuditFilter) (*filter, error) {
	c := &filter{AuditFilter: f, host: strings.ToLower(f.Host)}
	if host, port, err := net.SplitHostPort(c.host); err == nil {
		c.host, c.port = host, port
	}
	c.host = strings.TrimSuffix(strings.Trim(c.host, "[]"), ".")
	c.Method = strings.ToUpper(f.Method)
	var err error
	if c.low, c.high, err = statusRange(f.Status); err != nil {
		return nil, err
	}
	return c, nil
}

// statusRange reads "404", "4xx" or "400-499".
func statusRange(s string) (low, high int, err error) {
	if s == "" {
		return 0, 0, nil
	}
	bad := fmt.Errorf("status %q: want 404, 4xx or 400-499", s)
	if len(s) == 3 && strings.EqualFold(s[1:], "xx") && '1' <= s[0] && s[0] <= '9' {
		low = int(s[0]-'0') * 100
		return low, low + 99, nil
	}
	from, to, isRange := strings.Cut(s, "-")
	if !isRange {
		to = from
	}
	if low, err = strconv.Atoi(from); err != nil {
		return 0, 0, bad
	}
	if high, err = strconv.Atoi(to); err != nil || low < 100 || high > 999 || low > high {
		return 0, 0, bad
	}
	return low, high, nil
}

// begins reports whether what a record that is no end says is wanted, as far as that record tells.
func (f *filter) begins(r *control.AuditRecord) bool {
	same := func(want, have string) bool { return want == "" || want == have }
	return same(f.Agent, r.Agent) && same(f.Session, r.Session) && same(f.Verdict, r.Verdict) && same(f.Secret, r.Secret) &&
		same(f.Event, r.Event) && same(f.Method, r.Method) && f.isHost(r.Authority) && !f.tooEarly(r.Time) && !f.tooLate(r.Time)
}

func (f *filter) tooEarly(t time.Time) bool { return !f.Since.IsZero() && t.Before(f.Since) }
func (f *filter) tooLate(t time.Time) bool  { return !f.Until.IsZero() && !t.Before(f.Until) }

// ends reports whether an entry that is complete is wanted.
func (f *filter) ends(e *Entry) bool {
	reason, status := e.Record.Reason, e.Record.Status
	if e.End != nil {
		reason, status = e.End.Reason, e.End.Status
	}
	return (f.Reason == "" || f.Reason == reason) && (f.Status == "" || f.low <= status && status <= f.high)
}

func (f *filter) isHost(authority string) bool {
	if f.Host == "" {
		return true
	}
	host, port, err := net.SplitHostPort(authority)
	if err != nil {
		host, port = strings.Trim(authority, "[]"), ""
	}
	if f.port != "" && f.port != port {
		return false
	}
	if below, ok := strings.CutPrefix(f.host, "*"); ok && strings.HasPrefix(below, ".") {
		return len(host) > len(below) && strings.HasSuffix(host, below)
	}
	return host == f.host
}
