package mint

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"

	"torno.internal/broker/internal/challenge"
	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// Limits on what a registry's challenge names, in bytes.
const (
	maxService = 256
	maxScope   = 2 << 10
)

// asks are what the challenges of registries said to one version of a secret.
type asks struct {
	byHost    map[string]asked // for new purposes, by the host that they name, as it is marked there
	byPurpose map[string]asked
}

// of returns what a token for purpose is got with; ok is false where only a challenge can say it.
func (l *asks) of(g registry, purpose string) (a asked, ok bool) {
	if a, ok := l.byPurpose[purpose]; ok {
		return a, true
	}
	host, scope := partPurpose(purpose)
	a, known := l.byHost[host]
	a.scope = scope
	if g.path != anyPath {
		a.path = g.path
	}
	if s := g.in.Param("service"); s != "" {
		a.service = s
	}
	return a, known || g.path != anyPath && a.service != ""
}

// learn keeps what a challenge said.
func (l *asks) learn(purpose string, a asked) {
	if len(l.byPurpose) >= maxTokens {
		clear(l.byPurpose)
	}
	if l.byHost == nil {
		l.byHost, l.byPurpose = map[string]asked{}, map[string]asked{}
	}
	host, _ := partPurpose(purpose)
	l.byHost[host], l.byPurpose[purpose] = a, a
}

// Challenged says that a host refused a request with these fields. t is the token that it had; nil: none, for nothing is
// known yet of where tokens are got. The next Token is another one where that may help. err says that the host names another
// token endpoint than the secret is for, to which it is not sent.
func (m *Minter) Challenged(src *Source, purpose string, t *Token, f protocol.Fields) (another bool, err error) {
	if src.Meta.Inject.Scheme != control.SchemeRegistry {
		return t != nil && m.Refused(src, purpose, t), nil
	}
	a, ok, err := readChallenge(&src.Meta, purpose, f)
	if err != nil {
		return false, protocol.Refuse(protocol.ReasonCredential, err)
	}
	if ok && m.learn(src, purpose, t, a) {
		return true, nil
	}
	return t != nil && m.Refused(src, purpose, t), nil
}

// learn keeps what a challenge said, and gives t up if it was got otherwise.
func (m *Minter) learn(src *Source, purpose string, t *Token, a asked) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := m.families[family{src.Meta.Agent, src.Meta.Name, src.Meta.Version}]
	if all == nil || t != nil && t.asked == a {
		return false
	}
	e := all.current[purpose]
	if e != nil && e.token != nil && e.token == t && !all.retire(e, time.Now()) {
		return false
	}
	all.asks.learn(purpose, a)
	return true
}

// readChallenge reads what a registry says of where tokens for it are got. ok is false where it says nothing of that.
func readChallenge(m *control.Meta, purpose string, f protocol.Fields) (a asked, ok bool, err error) {
	all, err := challenge.Parse(f, "www-authenticate")
	if err != nil {
		return a, false, nil // nothing is made of it
	}
	for _, c := range all {
		if c.Is("Bearer") && c.Params["realm"] != "" {
			a, err = readRealm(m, purpose, c.Params)
			return a, err == nil, err
		}
	}
	return a, false, nil
}

// readRealm holds what a challenge names to what is sealed with the secret.
func readRealm(m *control.Meta, purpose string, params map[string]string) (a asked, err error) {
	sealed, path, _ := m.Inject.TokenEndpoint()
	realm, service := params["realm"], cmp.Or(params["service"], m.Inject.Param("service"))
	named, namedPath, err := control.ParseTokenURL(realm)
	switch {
	case err != nil || named != sealed || path != anyPath && namedPath != path:
		return a, fmt.Errorf("the registry names the token endpoint %q, and the secret goes to %q alone", clip(realm), m.Inject.Param("realm"))
	case m.Inject.Param("service") != "" && service != m.Inject.Param("service"):
		return a, fmt.Errorf("the registry names the service %q, and the secret is for %q alone", clip(service), m.Inject.Param("service"))
	case !isPlain(service, maxService) || !isPlain(params["scope"], maxScope):
		return a, errors.New("the registry names a service or a scope that is too long, or holds what none has")
	}
	a = asked{namedPath, service, params["scope"]}
	if a.scope == "" {
		_, a.scope = partPurpose(purpose)
	}
	return a, nil
}

// isPlain accepts visible ASCII and spaces.
func isPlain(s string, limit int) bool {
	return len(s) <= limit && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r >= 0x7f })
}

// clip cuts what somebody else says off for an error.
func clip(s string) string { return s[:min(len(s), 200)] }
