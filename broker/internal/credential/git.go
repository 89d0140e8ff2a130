package credential

import (
	"strings"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// git sends the secret as services that keep repositories want it: as a bearer token, but where git speaks HTTP
// in Basic credentials, since git knows no others. Some have a host that takes nothing but git's. Neither git
// nor programs that call an API have cookies, which would be somebody else's login.
type git struct {
	bearer
	basic basic
	only  protocol.Authority // on this host git's paths alone get the secret; zero: on none
}

func newGit(m control.Meta) (git, error) {
	b, err := newBasic(m)
	g := git{basic: b}
	if host := m.Inject.Param("host"); host != "" && err == nil {
		g.only, err = protocol.ParseAuthority(host, protocol.DefaultPort("https"))
	}
	return g, err
}

func (g git) Strip(name string) bool {
	name = protocol.FoldName(name)
	return name == "cookie" || name == "cookie2" || g.bearer.Strip(name)
}

func (g git) Apply(value secret.Value, req *protocol.Request) ([]Field, error) {
	if isGitPath(req.Path) {
		return g.basic.Apply(value, req)
	}
	return g.bearer.Apply(value, req)
}

// Covers implements chooser.
func (g git) Covers(a protocol.Authority, target string) bool {
	return a != g.only || isGitPath(target)
}

// gitServices end the paths of git's HTTP protocol and of Git LFS's. Which of two forms a credential takes is
// decided by them, and nothing else.
var gitServices = []string{"/info/refs", "/git-upload-pack", "/git-receive-pack"}

func isGitPath(target string) bool {
	path, _, _ := strings.Cut(target, "?")
	for _, s := range gitServices {
		if strings.HasSuffix(path, s) {
			return true
		}
	}
	return strings.Contains(path, "/info/lfs/")
}
