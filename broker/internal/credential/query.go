package credential

import (
	"strings"

	"torno.internal/broker/internal/spelling"
	"torno.internal/protocol"
	"torno.internal/protocol/secret"
)

// query sends the secret as a parameter of the query. The workload's own parameter of that name goes, however
// it is spelled.
type query struct{ name string }

func (query) Strip(name string) bool { return stripsTarget(protocol.FoldName(name)) }

func (q query) Apply(value secret.Value, req *protocol.Request) ([]Field, error) {
	target := q.StripTarget(req.Path)
	mark := "?"
	if strings.Contains(target, "?") {
		mark = "&"
	}
	b := make([]byte, 0, len(target)+len(q.name)+2+3*value.Len())
	b = append(append(append(append(b, target...), mark...), q.name...), '=')
	b = appendEscaped(b, value, "")
	return []Field{{Name: Target, Value: secret.New(b)}}, nil
}

// StripTarget cuts the parameter out of the query, and leaves all others as they are.
func (q query) StripTarget(target string) string { return spelling.DropParameter(target, q.name) }

// appendEscaped appends value, percent-encoded but for what RFC 3986 §2.3 calls unreserved and what keep holds.
func appendEscaped(b []byte, value secret.Value, keep string) []byte {
	const digits = "0123456789ABCDEF"
	_ = value.Use(func(v []byte) error {
		for _, c := range v {
			if isUnreserved(c) || strings.IndexByte(keep, c) >= 0 {
				b = append(b, c)
			} else {
				b = append(b, '%', digits[c>>4], digits[c&15])
			}
		}
		return nil
	})
	return b
}

func isUnreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~'
}
