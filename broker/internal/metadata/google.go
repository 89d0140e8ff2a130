package metadata

import (
	"slices"
	"strings"

	"torno.internal/protocol"
)

// A Google is what SDKs for Google Cloud may learn.
type Google struct {
	Placeholder string   // stands for access tokens and id tokens
	Email       string   // of the service account
	Project     string   // its id; empty: none is known
	Scopes      []string // that access tokens are good for
	Audiences   []string // that there are id tokens for
}

const pathGoogle = "/computeMetadata/v1/"

// flavor tells clients that this is a metadata server of Google's.
var flavor = protocol.Field{Name: googleField, Value: "Google"}

func (g *Google) answer(q *question) Answer {
	name, ok := strings.CutPrefix(strings.TrimSuffix(q.path, "/")+"/", pathGoogle)
	switch {
	case !q.reads():
		return plain(405, "method not allowed", flavor)
	case q.path == "/" || q.path == "/computeMetadata/": // where clients look whether anybody is there
		return plain(200, "computeMetadata/\n", flavor)
	case !strings.EqualFold(q.Fields.Get(googleField), "google"):
		return plain(403, "missing required header: Metadata-Flavor", flavor)
	case q.forwarded():
		return plain(403, "a proxy's requests are not answered", flavor)
	case !ok:
		return plain(404, "not found", flavor)
	case q.query.Has("wait_for_change"):
		return plain(400, "nothing here changes", flavor)
	}
	n := g.tree().find(strings.TrimSuffix(name, "/"))
	if n == nil {
		return plain(404, "not found", flavor)
	}
	return n.answer(q)
}

// tree is what the metadata server knows.
func (g *Google) tree() *node {
	account := []*node{
		{name: "aliases", value: []string{"default"}},
		{name: "email", value: g.Email},
		{name: "identity", ask: g.identity},
		{name: "scopes", value: g.Scopes},
		{name: "token", ask: g.access},
	}
	accounts := []*node{{name: "default", below: account}, {name: g.Email, below: account}}
	project := []*node{}
	if g.Project != "" {
		project = append(project, &node{name: "project-id", value: g.Project})
	}
	return &node{below: []*node{
		{name: "instance", below: []*node{{name: "service-accounts", below: accounts}}},
		{name: "project", below: project},
		{name: "universe", below: []*node{{name: "universe-domain", value: "googleapis.com"}}},
	}}
}

// access answers with an access token.
func (g *Google) access(*question) Answer {
	return document(200, map[string]any{
		"access_token": "ya29." + g.Placeholder, "expires_in": int(lifetime.Seconds()), "token_type": "Bearer",
	}, flavor)
}

// identity answers with an id token, which clients read for when it expires.
func (g *Google) identity(q *question) Answer {
	audience := q.query.Get("audience")
	switch {
	case audience == "":
		return plain(400, "non-empty audience parameter required", flavor)
	case !slices.Contains(g.Audiences, audience):
		return plain(404, "no secret of this session is for this audience", flavor)
	}
	claims := map[string]any{
		"aud": audience, "iss": "https://accounts.google.com", "sub": g.Email, "azp": g.Email, "email": g.Email, "email_verified": true,
		"iat": q.now.Unix(), "exp": q.now.Add(lifetime).Unix(),
	}
	return answer(200, "application/text", []byte(token(claims, g.Placeholder)), flavor)
}

// A node is a directory of the metadata server, or a leaf: a value, or what is made when it is asked for.
type node struct {
	name  string
	below []*node                // nil: a leaf
	value any                    // a string, or strings
	ask   func(*question) Answer // nil: value
}

// find returns the node at a path without slashes at its ends, or nil.
func (n *node) find(path string) *node {
	if path == "" {
		return n
	}
	name, rest, _ := strings.Cut(path, "/")
	for _, c := range n.below {
		if c.name == name {
			return c.find(rest)
		}
	}
	return nil
}

func (n *node) answer(q *question) Answer {
	switch {
	case n.ask != nil:
		return n.ask(q)
	case n.below != nil && q.query.Get("recursive") == "true":
		return document(200, n.all(), flavor)
	case n.below == nil && q.query.Get("alt") == "json":
		return document(200, n.value, flavor)
	}
	return answer(200, "application/text", []byte(n.text()), flavor)
}

// text lists a directory, or spells a value line by line.
func (n *node) text() string {
	var lines []string
	switch v := n.value.(type) {
	case string:
		return v
	case []string:
		lines = v
	}
	for _, c := range n.below {
		if c.below != nil {
			lines = append(lines, c.name+"/")
			continue
		}
		lines = append(lines, c.name)
	}
	return strings.Join(append(lines, ""), "\n")
}

// all returns the values in a directory and below it, by their names as JSON spells them: without hyphens.
func (n *node) all() any {
	if n.below == nil {
		return n.value
	}
	values := map[string]any{}
	for _, c := range n.below {
		if c.ask == nil {
			values[camel(c.name)] = c.all()
		}
	}
	return values
}

// camel spells a name as JSON has it, serviceAccounts for service-accounts. The names of accounts stay.
func camel(name string) string {
	if strings.Contains(name, "@") {
		return name
	}
	words := strings.Split(name, "-")
	for i, w := range words[1:] {
		words[i+1] = strings.ToUpper(w[:1]) + w[1:]
	}
	return strings.Join(words, "")
}
