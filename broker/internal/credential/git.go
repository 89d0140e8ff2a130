package credential

import (
	"strings"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// git sends the secret as services that keep repositories want it: as a bearer token, but where git speaks HTTP
// in Basic credentials, since git knows no others.
type git struct {
	bearer
	basic basic
}

func newGit(m control.Meta) (git, error) {
	b, err := newBasic(m)
	return git{basic: b}, err
}

func (g git) Apply(value secret.Value, req *protocol.Request) ([]Field, error) {
	if isGitPath(req.Path) {
		return g.basic.Apply(value, req)
	}
	return g.bearer.Apply(value, req)
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
