// Package challenge reads what servers say of how they want requests to be authorised: challenges (RFC 9110 §11.6.1).
package challenge

import (
	"errors"
	"strings"

	"torno.internal/protocol"
)

// Limits on the challenges of one response.
const (
	maxChallenges = 16
	maxParams     = 16 // of one challenge
)

// A Challenge is one way in which a server lets itself be asked.
type Challenge struct {
	Scheme string            // as written; names are compared without regard to case
	Token  string            // token68, which some schemes have instead of parameters
	Params map[string]string // by lower-case name, quotes undone
}

// Is reports whether the challenge is of a scheme.
func (c Challenge) Is(scheme string) bool { return strings.EqualFold(c.Scheme, scheme) }

var (
	errMalformed = errors.New("a malformed challenge")
	errTooMany   = errors.New("too many challenges, or parameters of one")
)

// Parse reads all fields of that name: www-authenticate, or another with the same grammar. Of what is malformed nothing is
// taken: the next reader might take it for something else. Its errors quote nothing.
func Parse(f protocol.Fields, name string) ([]Challenge, error) {
	var all []Challenge
	for i := range f {
		if f[i].Name != name {
			continue
		}
		p := parser{rest: f[i].Value}
		if err := p.challenges(); err != nil {
			return nil, err
		}
		if all = append(all, p.all...); len(all) > maxChallenges {
			return nil, errTooMany
		}
	}
	return all, nil
}

// A parser reads one field's value.
type parser struct {
	rest string
	all  []Challenge
}

// challenges reads a list whose elements are challenges and, behind the first comma, further parameters of the one before.
func (p *parser) challenges() error {
	for {
		p.skip(" \t,")
		if p.rest == "" {
			return nil
		}
		if err := p.element(); err != nil {
			return err
		}
		p.skip(" \t")
		if p.rest != "" && p.rest[0] != ',' {
			return errMalformed
		}
	}
}

// element reads a scheme, what stands behind it up to a comma, or one parameter.
func (p *parser) element() error {
	word := p.token()
	if word == "" {
		return errMalformed
	}
	if before := p.rest; len(p.all) > 0 {
		p.skip(" \t")
		if strings.HasPrefix(p.rest, "=") {
			return p.param(word)
		}
		p.rest = before
	}
	p.all = append(p.all, Challenge{Scheme: word, Params: map[string]string{}})
	if len(p.all) > maxChallenges {
		return errTooMany
	}
	if !strings.HasPrefix(p.rest, " ") {
		return nil
	}
	p.skip(" ")
	if p.rest == "" || p.rest[0] == ',' {
		return nil
	}
	if token, ok := p.token68(); ok {
		p.all[len(p.all)-1].Token = token
		return nil
	}
	name := p.token()
	if p.skip(" \t"); name == "" {
		return errMalformed
	}
	return p.param(name)
}

// param reads a parameter's value, behind its name.
func (p *parser) param(name string) error {
	if !strings.HasPrefix(p.rest, "=") {
		return errMalformed
	}
	p.rest = p.rest[1:]
	p.skip(" \t")
	value, ok := p.token(), true
	if value == "" {
		value, ok = p.quoted()
	}
	params := p.all[len(p.all)-1].Params
	name = strings.ToLower(name)
	if _, again := params[name]; !ok || again || p.all[len(p.all)-1].Token != "" {
		return errMalformed
	}
	if params[name] = value; len(params) > maxParams {
		return errTooMany
	}
	return nil
}

func (p *parser) skip(set string) { p.rest = strings.TrimLeft(p.rest, set) }

// token takes a token (RFC 9110 §5.6.2); empty: there is none.
func (p *parser) token() string {
	n := 0
	for n < len(p.rest) && protocol.IsToken(p.rest[n:n+1]) {
		n++
	}
	token := p.rest[:n]
	p.rest = p.rest[n:]
	return token
}

// token68 takes one, if all up to the next comma, or the end, is one. What could be a parameter with an empty value is
// none.
func (p *parser) token68() (string, bool) {
	text, _, _ := strings.Cut(p.rest, ",")
	text = strings.TrimRight(text, " \t")
	plain := strings.TrimRight(text, "=")
	if plain == "" || strings.Trim(plain, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/") != "" {
		return "", false
	}
	p.rest = p.rest[len(text):]
	return text, true
}

// quoted takes a quoted string (RFC 9110 §5.6.4) and returns what it means.
func (p *parser) quoted() (string, bool) {
	if !strings.HasPrefix(p.rest, `"`) {
		return "", false
	}
	var b strings.Builder
	for i := 1; i < len(p.rest); i++ {
		switch c := p.rest[i]; {
		case c == '"':
			p.rest = p.rest[i+1:]
			return b.String(), true
		case c == '\\' && i+1 < len(p.rest):
			i++
			b.WriteByte(p.rest[i])
		case c == '\\' || c < ' ' && c != '\t' || c == 0x7f:
			return "", false
		default:
			b.WriteByte(c)
		}
	}
	return "", false
}
