package protocol

import "strings"

// A Field is one field line (RFC 9110 §5). On the wire between guest and broker names are lower case.
type Field struct {
	Name, Value string
}

// Fields is a section of field lines in the order received. The zero value is an empty section. Names
// compare without regard to case.
type Fields []Field

// Get returns the value of the first line called name, or "".
func (f Fields) Get(name string) string {
	v, _ := f.Lookup(name)
	return v
}

// Lookup returns the value of the first line called name and whether there is one.
func (f Fields) Lookup(name string) (string, bool) {
	for i := range f {
		if strings.EqualFold(f[i].Name, name) {
			return f[i].Value, true
		}
	}
	return "", false
}

// Count returns how many lines are called name.
func (f Fields) Count(name string) int {
	n := 0
	for i := range f {
		if strings.EqualFold(f[i].Name, name) {
			n++
		}
	}
	return n
}

// Del removes every line called name in place and returns the shortened section.
func (f Fields) Del(name string) Fields {
	return f.DelFunc(func(l Field) bool { return strings.EqualFold(l.Name, name) })
}

// DelFunc removes every line for which drop is true, in place, and returns the shortened section.
func (f Fields) DelFunc(drop func(Field) bool) Fields {
	kept := f[:0]
	for _, l := range f {
		if !drop(l) {
			kept = append(kept, l)
		}
	}
	clear(f[len(kept):])
	return kept
}

// Set replaces every line called name by one line at the end.
func (f Fields) Set(name, value string) Fields {
	return append(f.Del(name), Field{name, value})
}

// Clone returns a copy that shares no memory with f but the strings themselves.
func (f Fields) Clone() Fields { return append(Fields(nil), f...) }

// A Request is the control data and header section of a request (RFC 9292 §3.4). Authority is always
// set, there is no host field, and connection-specific fields are absent; the path holds the query,
// byte for byte as the workload sent it. For CONNECT (RFC 9110 §9.3.6) scheme and path are empty;
// extended CONNECT (RFC 8441) sets both and Protocol.
type Request struct {
	Method    string
	Scheme    string
	Authority string
	Path      string
	Protocol  string // the :protocol pseudo-field of extended CONNECT, else empty
	Fields    Fields
}

// A Response is the control data and header section of a response, interim (status 100–199) or final.
type Response struct {
	Status int // 100–599
	Fields Fields
}

// Interim reports whether another response follows this one in the same exchange.
func (r *Response) Interim() bool { return r.Status >= 100 && r.Status < 200 }

// NoContent reports whether a response with this status to a request with this method never has
// content (RFC 9110 §6.4.1).
func NoContent(method string, status int) bool {
	return method == "HEAD" || status == 204 || status == 304 || status < 200
}

// IsToken reports whether s is a token (RFC 9110 §5.6.2), as methods and field names are.
func IsToken(s string) bool {
	for i := range len(s) {
		if !tokenChar[s[i]] {
			return false
		}
	}
	return s != ""
}

// IsFieldValue reports whether s may stand as a field value: visible ASCII, space, tab and obs-text,
// with no white space at either end (RFC 9110 §5.5).
func IsFieldValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < 0x20 && c != '\t' || c == 0x7f {
			return false
		}
	}
	return s == "" || !isSpace(s[0]) && !isSpace(s[len(s)-1])
}

// FoldName returns a field's name as a server behind CGI tells names apart (RFC 3875 §4.1.18): in one case, and with
// no difference between an underscore and a hyphen.
func FoldName(name string) string {
	return strings.ReplaceAll(strings.ToLower(name), "_", "-")
}

// IsPath reports whether s may stand as a path and query in origin form (RFC 9112 §3.2.1): it begins
// with a slash and holds visible ASCII without "#", because a fragment is never sent.
func IsPath(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '#' {
			return false
		}
	}
	return s != "" && s[0] == '/'
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' }

var tokenChar = func() (t [256]bool) {
	for c := '0'; c <= '9'; c++ {
		t[c] = true
	}
	for c := 'a'; c <= 'z'; c++ {
		t[c], t[c-'a'+'A'] = true, true
	}
	for _, c := range "!#$%&'*+-.^_`|~" {
		t[c] = true
	}
	return t
}()

// ConnectionFields are the connection-specific fields (RFC 9113 §8.2.2) plus host and the proxy's
// own. They end at each hop: the guest's front and the broker's upstream client consume them, and the
// wire between the two refuses them.
var ConnectionFields = []string{
	"connection", "host", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade",
}

// IsConnectionField reports whether the lower-case name is in ConnectionFields.
func IsConnectionField(name string) bool {
	switch name {
	case "connection", "host", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade":
		return true
	}
	return false
}
