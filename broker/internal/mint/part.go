package mint

import (
	"bytes"

	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// A Part is what of a token is searched for where it must not be.
type Part struct {
	Value  secret.Value
	Public string // its beginning that is no secret
}

// Parts returns what of t is confidential. The values are the token's own.
func (t *Token) Parts() []Part {
	if t.parts != nil {
		return t.parts
	}
	return []Part{{t.Value, t.public()}}
}

// public returns the beginning of a token that is no secret: of a JWT (RFC 7519) what is before its signature,
// which hosts may have in common in all that they issue.
func (t *Token) public() (prefix string) {
	_ = t.Value.Use(func(b []byte) error {
		if bytes.HasPrefix(b, []byte("eyJ")) && bytes.Count(b, []byte(".")) == 2 {
			prefix = string(b[:bytes.LastIndexByte(b, '.')+1])
		}
		return nil
	})
	return prefix
}

// keyParts returns what of temporary keys is confidential: not their id.
func keyParts(k control.AWSKeys) []Part {
	return []Part{
		{secret.New(bytes.Clone(k.Secret)), ""},
		{secret.New(bytes.Clone(k.Token)), control.SessionTokenPrefix(k.Token)},
	}
}
