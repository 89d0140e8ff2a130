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
// request is sent twice. Where it does not, since the registry names things otherwise or the secret does not say where tokens
// are got, it learns it from the challenge.
type registry struct {
	endpoint
	in    control.Injector
	asked asked
}

// An asked is what a registry's challenge names: where tokens are got, for which service and for what.
type asked struct{ path, service, scope string }

func (registry) id() bool { return false }

func (g registry) request(value []byte, _ string, _ time.Time) (*Request, error) {
	query := &form{}
	query.add("service", g.asked.service)
	for scope := range strings.FieldsSeq(g.asked.scope) {
		query.add("scope", scope)
	}
	path := g.asked.path
	if len(query.b) > 0 {
		path += "?" + string(query.b)
	}
	user := g.in.ParamOr("user", "x-access-token")
	plain := append(append(make([]byte, 0, len(user)+1+len(value)), user+":"...), value...)
	defer secret.Wipe(plain)
	return &Request{Authority: g.authority, Method: "GET", Path: path, Authorization: basicOf(plain)}, nil
}

// anyPath is the path of a realm that names an origin alone: the challenge says the rest.
const anyPath = "/"

// Purpose returns what of a request to a decides which token it needs: nothing, but for registries, whose tokens are for what the request
// does and, where the secret does not say the service, for the host.
func Purpose(in control.Injector, a protocol.Authority, req *protocol.Request) string {
	if in.Scheme != control.SchemeRegistry {
		return ""
	}
	scope := scopeOf(req)
	if in.Param("service") != "" {
		return scope
	}
	return hostMark + a.String() + " " + scope
}

// hostMark stands before the host in a purpose.
const hostMark = "@"

// partPurpose returns the host of a purpose, as it is marked there, and its scope.
func partPurpose(purpose string) (host, scope string) {
	if !strings.HasPrefix(purpose, hostMark) {
		return "", purpose
	}
	host, scope, _ = strings.Cut(purpose, " ")
	return host, scope
}

// scopeOf returns what a registry's challenge to req would name.
func scopeOf(req *protocol.Request) string {
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
