package credential

import (
	"strings"

	"torno.internal/broker/internal/spelling"
	"torno.internal/protocol"
	"torno.internal/protocol/secret"
)

// cookie sends the secret as a cookie (RFC 6265 §5.4) before the workload's own ones.
type cookie struct{ name string }

func (cookie) Strip(name string) bool {
	name = protocol.FoldName(name)
	return name == "cookie" || name == "cookie2" || isAuthField(name)
}

func (c cookie) Apply(value secret.Value, req *protocol.Request) ([]Field, error) {
	b := make([]byte, 0, len(c.name)+1+value.Len()+c.room(req.Fields))
	b = value.AppendTo(append(append(b, c.name...), '='))
	for i := range req.Fields {
		if protocol.FoldName(req.Fields[i].Name) != "cookie" {
			continue
		}
		for pair := range strings.SplitSeq(req.Fields[i].Value, ";") {
			if pair = strings.Trim(pair, " \t"); pair != "" && !c.is(pair) {
				b = append(append(b, "; "...), pair...)
			}
		}
	}
	return []Field{{Name: "cookie", Value: secret.New(b)}}, nil
}

// room returns how many bytes the workload's cookies take at most.
func (cookie) room(f protocol.Fields) int {
	n := 0
	for i := range f {
		if protocol.FoldName(f[i].Name) == "cookie" {
			n += 2*len(f[i].Value) + 4 // a separator grows by one byte, behind one byte of a pair at least
		}
	}
	return n
}

// is reports whether some server may take the cookie pair for ours: encoded, in another case or, as PHP has
// it, with an index. A quoted value can hold more cookies for who reads RFC 2965, and a comma can part them.
func (c cookie) is(pair string) bool {
	if strings.ContainsAny(pair, `",`) {
		return true
	}
	return spelling.IsParameter(pair, c.name)
}
