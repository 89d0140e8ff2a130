package mint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"torno.internal/protocol/secret"
)

// An answered is what a token endpoint's answer says.
type answered struct {
	access  []byte
	parts   []Part        // what of access is confidential; nil: all
	refresh []byte        // takes the place of the one that was used; empty: none
	life    time.Duration // clamped
	worth   time.Duration // how long hosts may take it, at least life
}

// token returns the token, got at now, and owns its bytes.
func (a *answered) token(now time.Time) *Token {
	return &Token{
		Value: secret.New(a.access), parts: a.parts, got: now,
		renew: now.Add(a.life - min(ahead, a.life/4)), expires: now.Add(a.life), worthless: now.Add(a.worth),
	}
}

// A body is the JSON of an answer: RFC 6749 §5.1, and how GitHub and registries spell it.
type body struct {
	AccessToken  text            `json:"access_token"`
	IDToken      text            `json:"id_token"`
	RefreshToken text            `json:"refresh_token"`
	Token        text            `json:"token"`      // of GitHub and of registries
	TokenType    string          `json:"token_type"` // Bearer, or left out
	ExpiresIn    json.RawMessage `json:"expires_in"` // seconds, as a number or a string
	ExpiresAt    string          `json:"expires_at"` // RFC 3339
	Error        json.RawMessage `json:"error"`
}

// text is a JSON string, in bytes that can be wiped.
type text []byte

func (t *text) UnmarshalJSON(b []byte) error {
	if bytes.Equal(b, []byte("null")) {
		return nil
	}
	if len(b) >= 2 && b[0] == '"' && bytes.IndexByte(b, '\\') < 0 {
		*t = bytes.Clone(b[1 : len(b)-1])
		return nil
	}
	var s string
	err := json.Unmarshal(b, &s)
	*t = []byte(s)
	return err
}

// readAnswer checks an answer and returns what it says. Its errors quote nothing but a status and an error code in the
// alphabet of such codes.
func readAnswer(g grant, a *Answer, now time.Time) (*answered, error) {
	switch {
	case len(a.Content) > maxAnswer:
		return nil, fmt.Errorf("the token endpoint answers more than %d bytes", maxAnswer)
	case a.Status >= 300 && a.Status < 400:
		return nil, fmt.Errorf("the token endpoint answers %d, and no redirect is followed", a.Status)
	}
	if r, ok := g.(reader); ok {
		return r.read(a, now)
	}
	return readOAuth(g, a, now)
}

// readOAuth reads an answer as RFC 6749 has it.
func readOAuth(g grant, a *Answer, now time.Time) (*answered, error) {
	if a.Status != 200 && a.Status != 201 {
		return nil, fmt.Errorf("the token endpoint answers %d%s%s", a.Status, a.saying(errorCode(a.Content)), clockNote(a, now))
	}
	var b body
	if err := json.Unmarshal(a.Content, &b); err != nil {
		return nil, errors.New("the token endpoint's answer is not JSON as RFC 6749 has it")
	}
	access := b.AccessToken
	if len(access) == 0 {
		access = b.Token
	}
	if g.id() {
		access = b.IDToken
	}
	defer wipeOthers(&b, access)
	switch {
	case len(access) == 0:
		return nil, fmt.Errorf("the token endpoint's answer has no token%s", a.saying(errorCode(a.Content)))
	case !rightType(b.TokenType, g):
		return nil, fmt.Errorf("the token is of a type other than %s", g.kind())
	case !isToken(access):
		return nil, errors.New("the token is too long, or holds what no field can carry")
	case len(b.RefreshToken) > 0 && !isToken(b.RefreshToken):
		return nil, errors.New("the refresh token is too long, or holds what no field can carry")
	}
	life, worth, err := b.life(a, now)
	if err != nil {
		return nil, err
	}
	return &answered{access: access, refresh: bytes.Clone(b.RefreshToken), life: life, worth: worth}, nil
}

// The types of tokens (RFC 6749 §7.1).
const (
	typeBearer = "Bearer"
	typeDPoP   = "DPoP"
)

// rightType reports whether an answer may name that type. A bearer token where a bound one was asked for is no such token:
// its server has not understood. Id tokens have no type of their own.
func rightType(named string, g grant) bool {
	return g.id() || strings.EqualFold(named, g.kind()) || named == "" && g.kind() == typeBearer
}

func wipeOthers(b *body, kept text) {
	for _, t := range []text{b.AccessToken, b.IDToken, b.Token, b.RefreshToken} {
		if len(t) > 0 && (len(kept) == 0 || &t[0] != &kept[0]) {
			secret.Wipe(t)
		}
	}
}

// life returns for how long the token is used, and for how long hosts may take it. Whatever the endpoint says, it is renewed
// neither at every request nor once a year.
func (b *body) life(a *Answer, now time.Time) (life, worth time.Duration, err error) {
	said, worth := lifetime, maxLifetime // where nobody says, hosts may take it for longer than we use it
	switch {
	case len(b.ExpiresIn) > 0 && !bytes.Equal(b.ExpiresIn, []byte("null")):
		n, err := strconv.ParseFloat(string(bytes.Trim(b.ExpiresIn, `"`)), 64)
		if err != nil || math.IsNaN(n) {
			return 0, 0, errors.New("the token's lifetime is not a number")
		}
		said = time.Duration(max(0, min(n, maxWorth.Seconds()))) * time.Second
		worth = said
	case b.ExpiresAt != "":
		at, err := time.Parse(time.RFC3339, b.ExpiresAt)
		if err != nil {
			return 0, 0, errors.New("the token's expiry is not a time")
		}
		if date, err := http.ParseTime(a.Fields.Get("date")); err == nil {
			now = date // by the clock that the expiry was reckoned with
		}
		said = at.Sub(now)
		worth = said
	}
	life = min(max(said, minLifetime), maxLifetime)
	return life, min(max(worth, life), maxWorth), nil
}

// isToken accepts what RFC 6750 §2.1 lets a token be made of, and a little more that is in use.
func isToken(b []byte) bool {
	for _, c := range b {
		if c <= ' ' || c >= 0x7f || c == '"' || c == '\\' {
			return false
		}
	}
	return len(b) > 0 && len(b) <= maxToken
}

// errorCode returns the error code of an answer (RFC 6749 §5.2), if it looks like one.
func errorCode(content []byte) string {
	var b body
	var code string
	if len(content) > maxAnswer || json.Unmarshal(content, &b) != nil || json.Unmarshal(b.Error, &code) != nil {
		return ""
	}
	if code == "" || len(code) > 64 || strings.Trim(code, "abcdefghijklmnopqrstuvwxyz_") != "" {
		return ""
	}
	return ", " + code
}

// quoted is how many bytes of a secret a code may have in common with it by chance.
const quoted = 7

// saying returns what errors say of code, which is an error code with what parts it from what is before it, or empty: it stands in
// logs, and an endpoint that spells the secret as one is not repeated.
func (a *Answer) saying(code string) string {
	repeats := false
	_ = a.asked.Use(func(value []byte) error {
		n := min(quoted+1, len(value))
		for i := 0; n > 0 && i+n <= len(code) && !repeats; i++ {
			repeats = bytes.Contains(value, []byte(code[i:i+n]))
		}
		return nil
	})
	if repeats {
		return ", and a part of the secret for a code"
	}
	return code
}

// clockSlack is how far two clocks may be apart before it is worth a word.
const clockSlack = 2 * time.Minute

// clockNote says how far the endpoint's clock is from ours, where that may be why it refuses.
func clockNote(a *Answer, now time.Time) string {
	date, err := http.ParseTime(a.Fields.Get("date"))
	if err != nil || date.Sub(now).Abs() < clockSlack {
		return ""
	}
	return fmt.Sprintf("; its clock is %v from this host's", date.Sub(now).Round(time.Minute))
}
