package credential

import (
	"strings"

	"torno.internal/broker/internal/spelling"
	"torno.internal/protocol"
	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// standIn is what the audit has in the place of a path's credential.
const standIn = "***"

// path sends the secret in a part of the path. The workload sends anything in its place.
type path struct{ control.Template }

func newPath(m control.Meta) (path, error) {
	t, err := control.ParseTemplate(m.Name, m.Inject.Param("template"))
	return path{t}, err
}

func (path) Strip(name string) bool { return stripsTarget(protocol.FoldName(name)) }

// stripsTarget is Strip, of a folded name, for injectors that set the target: no field may stand for another one.
func stripsTarget(name string) bool {
	return name == "x-original-url" || name == "x-rewrite-url" || isAuthField(name)
}

// Apply refuses a path that has no place for the secret: the workload's own credential could stand in it.
func (p path) Apply(value secret.Value, req *protocol.Request) ([]Field, error) {
	rest, ok := p.rest(req.Path)
	if !ok {
		return nil, protocol.Refuse(protocol.ReasonNoPlace, nil)
	}
	b := make([]byte, 0, len(p.Prefix)+3*value.Len()+len(rest))
	b = appendEscaped(append(b, p.Prefix...), value, "/:@!$&'()*+,=")
	return []Field{{Name: Target, Value: secret.New(append(b, rest...))}}, nil
}

// StripTarget puts a stand-in where the path has a place for the credential. Requests without one are refused.
func (p path) StripTarget(target string) string {
	rest, ok := p.rest(target)
	if !ok {
		return target
	}
	return p.Prefix + standIn + rest
}

// rest returns what follows the credential in target: the template's suffix and all behind it. There is none
// where a server that resolves dot segments could arrive somewhere else.
func (p path) rest(target string) (string, bool) {
	after, ok := strings.CutPrefix(target, p.Prefix)
	if !ok {
		return "", false
	}
	end := strings.IndexAny(after, "/?")
	if end < 0 {
		end = len(after)
	}
	suffix, _, _ := strings.Cut(p.Suffix, "/")
	part, ok := strings.CutSuffix(after[:end], suffix)
	rest := after[len(part):]
	if !ok || !strings.HasPrefix(rest, p.Suffix) || leadsElsewhere(rest) {
		return "", false
	}
	return rest, true
}

// leadsElsewhere reports whether the path of target has a dot segment, or what some server takes for one.
func leadsElsewhere(target string) bool {
	path, _, _ := strings.Cut(target, "?")
	for range spelling.MaxDecodings {
		path = spelling.Unescape(path, "%")
	}
	for segment := range strings.FieldsFuncSeq(path, func(r rune) bool { return r == '/' || r == '\\' }) {
		segment, _, _ = strings.Cut(segment, ";")
		if segment == "." || segment == ".." {
			return true
		}
	}
	return false
}
