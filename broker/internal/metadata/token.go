package metadata

import (
	"encoding/base64"
	"encoding/json"
)

// token returns what clients read as a JWT (RFC 7519) with these claims, whose signature is the placeholder: no verifier
// takes it.
func token(claims map[string]any, placeholder string) string {
	body, err := json.Marshal(claims)
	if err != nil {
		panic(err) // our own mistake: claims are strings and numbers
	}
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(`{"alg":"RS256","typ":"JWT"}`)) + "." + encode(body) + "." + placeholder
}
