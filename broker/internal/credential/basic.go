package credential

import (
	"encoding/base64"
	"strings"
	"unicode/utf8"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// anyUser is the user where neither the secret nor the workload names one: servers that take a token for the
// password take any user.
const anyUser = "x-access-token"

// maxUser bounds a user that the workload names, in bytes.
const maxUser = 256

// basic sends the secret in Basic credentials (RFC 7617).
type basic struct {
	control.Template
	inbound bool // the user is the workload's; Prefix is what it is without one
}

func newBasic(m control.Meta) (basic, error) {
	user, template := m.Inject.Param("user"), m.Inject.Param("template")
	switch {
	case template != "":
		t, err := control.ParseTemplate(m.Name, template)
		return basic{Template: t}, err
	case user != "":
		return basic{Template: control.Template{Prefix: user + ":"}}, nil
	}
	return basic{Template: control.Template{Prefix: anyUser + ":"}, inbound: true}, nil
}

func (basic) Strip(name string) bool { return isAuthField(protocol.FoldName(name)) }

func (b basic) Apply(value secret.Value, req *protocol.Request) ([]Field, error) {
	prefix := b.Prefix
	if user, ok := basicUser(req.Fields); ok && b.inbound {
		prefix = user + ":"
	}
	return []Field{basicField(prefix, value, b.Suffix)}, nil
}

// basicField returns the field with prefix, value and suffix encoded, in fresh memory.
func basicField(prefix string, value secret.Value, suffix string) Field {
	const scheme = "Basic "
	plain := make([]byte, 0, len(prefix)+value.Len()+len(suffix))
	plain = append(value.AppendTo(append(plain, prefix...)), suffix...)
	defer secret.Wipe(plain)
	coded := make([]byte, 0, len(scheme)+base64.StdEncoding.EncodedLen(len(plain)))
	return Field{Name: "authorization", Value: secret.New(base64.StdEncoding.AppendEncode(append(coded, scheme...), plain))}
}

// basicUser returns the user of the one Basic credential in f, if there is one that can be taken over. A
// placeholder is none: some services have the key in the user's place.
func basicUser(f protocol.Fields) (string, bool) {
	if f.Count("authorization") != 1 {
		return "", false
	}
	scheme, coded, ok := strings.Cut(f.Get("authorization"), " ")
	if !ok || !strings.EqualFold(scheme, "basic") || len(coded) > protocol.MaxFieldValue {
		return "", false
	}
	plain, err := base64.StdEncoding.DecodeString(strings.Trim(coded, " "))
	user, _, ok := strings.Cut(string(plain), ":")
	if err != nil || !ok || user == "" || len(user) > maxUser || !utf8.ValidString(user) ||
		strings.ContainsFunc(user, isControl) || strings.Contains(user, control.PlaceholderMark) {
		return "", false
	}
	return user, true
}

func isControl(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 }
