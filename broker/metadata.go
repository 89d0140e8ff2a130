package broker

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"slices"
	"strings"
	"time"

	"torno.internal/broker/internal/metadata"
	"torno.internal/broker/internal/policy"
	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// clouds returns those whose SDKs the plan's secrets authorise, in order.
func (p *plan) clouds() []control.Cloud {
	var all []control.Cloud
	for _, m := range p.metas {
		if c := m.Inject.Cloud(); c != "" && m.Expose == control.ExposeNone && len(m.Audience) > 0 && !slices.Contains(all, c) {
			all = append(all, c)
		}
	}
	slices.Sort(all)
	return all
}

func newMetadataKey() (key [sha256.Size]byte) {
	_, _ = rand.Read(key[:]) // never fails: crypto/rand ends the process instead
	return key
}

// asksMetadata returns the cloud whose metadata service the request is for, if the session began with a secret of that
// cloud and the policy lets the request go. Such a request goes nowhere: the broker answers it. For any other session those
// addresses are special ones as others are.
func (x *exchange) asksMetadata() control.Cloud {
	if x.req.Scheme != "http" || x.req.Protocol != "" || x.decision.Verdict != policy.Allow && x.decision.Verdict != policy.Ask {
		return ""
	}
	c := metadata.CloudOf(x.authority, x.req.Path)
	if c == "" || x.s.record.Shared(c) == "" {
		return ""
	}
	return c
}

var errNoneLeft = errors.New("no secret of this cloud is in use any more")

// answerMetadata answers for the metadata service.
func (x *exchange) answerMetadata() (bool, error) {
	a, err := x.metadata()
	if err != nil {
		if err := x.fail(err); err != nil {
			return false, err
		}
		return x.drain()
	}
	x.outcome.Status, x.outcome.Head = a.Status, time.Since(x.started)
	x.s.stats.last.Store(&decided{method: x.req.Method, authority: x.name, status: a.Status})
	if err := x.st.w.WriteResponse(&a.Response); err != nil {
		return false, err
	}
	if x.req.Method != "HEAD" {
		x.outcome.BytesDown = int64(len(a.Content))
		if _, err := x.st.w.Write(a.Content); err != nil {
			return false, err
		}
	}
	if err := x.st.w.Close(nil); err != nil {
		return false, err
	}
	return x.drain()
}

// metadata makes the answer, from what the session may learn now.
func (x *exchange) metadata() (metadata.Answer, error) {
	if err := x.reauthorise(); err != nil {
		return metadata.Answer{}, err
	}
	a, ok := x.s.metadata().Answer(x.cloud, x.req, time.Now())
	if !ok {
		return metadata.Answer{}, protocol.Refuse(protocol.ReasonRevoked, errNoneLeft)
	}
	return a, x.exceeded(x.within.Down(len(a.Content)))
}

// metadata is what the session's SDKs may learn of the secrets that it uses now.
func (s *live) metadata() *metadata.Service {
	set, shared := s.secrets(), s.record.Shared
	m := &metadata.Service{Key: s.metadataKey}
	if len(set.OfCloud(control.CloudAWS)) > 0 {
		m.AWS = &metadata.AWS{Placeholder: shared(control.CloudAWS), Region: s.region()}
	}
	if all := set.OfCloud(control.CloudAzure); len(all) > 0 {
		m.Azure = &metadata.Azure{Placeholder: shared(control.CloudAzure)}
		for _, sec := range all {
			m.Azure.Identities = append(m.Azure.Identities, metadata.IdentityOf(sec.Meta.Inject))
		}
	}
	if len(set.OfCloud(control.CloudGoogle)) > 0 {
		m.Google = s.google(shared(control.CloudGoogle))
	}
	return m
}

// noAccount is what a service account is called where there is none, or more than one.
const noAccount = "torno@session.invalid"

// google is what SDKs for Google Cloud may learn: whose keys the session uses, as far as that is one account's.
func (s *live) google(placeholder string) *metadata.Google {
	g := &metadata.Google{Placeholder: placeholder}
	for _, sec := range s.secrets().OfCloud(control.CloudGoogle) {
		in := sec.Meta.Inject
		if audience := in.Param("audience"); audience != "" {
			g.Audiences = append(g.Audiences, audience)
		} else {
			g.Scopes = append(g.Scopes, strings.Fields(in.ParamOr("scope", control.DefaultGoogleScope))...)
		}
		_ = sec.Value.Use(func(value []byte) error {
			email, project := control.GoogleAccount(value)
			g.Email, g.Project = one(g.Email, email), one(g.Project, project)
			return nil
		})
	}
	slices.Sort(g.Scopes)
	g.Scopes = slices.Compact(g.Scopes)
	if g.Email == "" || g.Email == several {
		g.Email = noAccount
	}
	if g.Project == several {
		g.Project = ""
	}
	return g
}

// several stands for what differs.
const several = "\x00"

// one returns what a and b have in common; an empty one says nothing.
func one(a, b string) string {
	switch {
	case a == "" || a == b:
		return b
	case b == "":
		return a
	}
	return several
}
