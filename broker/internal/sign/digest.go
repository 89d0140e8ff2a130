package sign

import (
	"crypto"
	"encoding/base64"
	"fmt"
	"strings"
)

// A digest is one of content: the zero one is of none.
type digest struct {
	hash crypto.Hash
	sum  string // its bytes
}

// digestNames are the algorithms of Content-Digest that are safe (RFC 9530 §5).
var digestNames = map[string]crypto.Hash{"sha-256": crypto.SHA256, "sha-512": crypto.SHA512}

// newDigest returns the digest of content.
func newDigest(hash crypto.Hash, content []byte) digest {
	h := hash.New()
	h.Write(content)
	return digest{hash, string(h.Sum(nil))}
}

// parseDigest reads a Content-Digest with one digest (RFC 9530 §2).
func parseDigest(value string) (digest, error) {
	name, rest, ok := strings.Cut(value, "=:")
	encoded, ends := strings.CutSuffix(rest, ":")
	hash := digestNames[name]
	sum, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if !ok || !ends || hash == 0 || err != nil || len(sum) != hash.Size() {
		return digest{}, fmt.Errorf("content-digest %q is not one sha-256 or sha-512", value)
	}
	return digest{hash, string(sum)}, nil
}

// String returns the digest as Content-Digest has it.
func (d digest) String() string {
	for name, hash := range digestNames {
		if hash == d.hash {
			return name + "=:" + base64.StdEncoding.EncodeToString([]byte(d.sum)) + ":"
		}
	}
	return ""
}
