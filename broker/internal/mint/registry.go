package mint

import (
	"strings"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// registry gets tokens of a container registry (distribution's token authentication), each for what one
// request does: the broker knows from the request what the registry's challenge would say, so that no
// request is sent twice.
type registry struct {
	endpoint
	in control.Injector
}

func (registry) id() bool { return false }

func (g registry) request(value []byte, purpose string, _ time.Time) (*Request, error) {
	query := &form{}
	query.add("service", g.in.Param("service"))
	for scope := range strings.FieldsSeq(purpose) {
		query.add("scope", scope)
	}
	user := g.in.ParamOr("user", "x-access-token")
	plain := append(append(make([]byte, 0, len(user)+1+len(value)), user+":"...), value...)
	defer secret.Wipe(plain)
	return &Request{Authority: g.authority, Method: "GET", Path: g.path + "?" + string(query.b), Authorization: basicOf(plain)}, nil
}

// Purpose returns what of req decides which token it needs: nothing, but for registries.
func Purpose(in control.Injector, req *protocol.Request) string {
	if in.Scheme != control.SchemeRegistry {
		return ""
	}
	path, query, _ := strings.Cut(req.Path, "?")
	rest, ok := strings.CutPrefix(path, "/v2/")
	if !ok {
		return ""
	}
	if rest == "_catalog" {
		return "registry:catalog:*"
	}
	name := repository(rest)
	if name == "" {
		return ""
	}
	scope := "repository:" + name + ":pull"
	switch req.Method {
	case "GET", "HEAD":
	case "DELETE":
		scope += ",delete"
	default:
		scope += ",push"
	}
	if from := mountedFrom(query); from != "" {
		scope += " repository:" + from + ":pull"
	}
	return scope
}

// repository returns the repository's name of a path behind /v2/, or "".
func repository(rest string) string {
	for _, part := range []string{"/manifests/", "/blobs/", "/tags/", "/referrers/"} {
		if i := strings.LastIndex(rest, part); i > 0 && isRepository(rest[:i]) {
			return rest[:i]
		}
	}
	return ""
}

// mountedFrom returns the repository that a blob is mounted from, or "".
func mountedFrom(query string) string {
	for pair := range strings.SplitSeq(query, "&") {
		if from, ok := strings.CutPrefix(pair, "from="); ok {
			if from = strings.ReplaceAll(from, "%2F", "/"); isRepository(from) {
				return from
			}
		}
	}
	return ""
}

const maxRepository = 255 // bytes

// isRepository reports whether s is a repository's name: lower-case words between slashes.
func isRepository(s string) bool {
	return s != "" && len(s) <= maxRepository && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789._-/") == ""
}
