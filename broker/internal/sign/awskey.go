package sign

import (
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"

	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// Names that AWS Signature Version 4 signs with.
const (
	awsAlgorithm = "AWS4-HMAC-SHA256"
	awsEnd       = "aws4_request"
	awsTime      = "20060102T150405Z"
	awsDay       = "20060102"
)

// emptyHash is the SHA-256 of nothing.
const emptyHash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// A scope is what one signing key is good for. Without a region it is one of Signature Version 4A.
type scope struct{ region, service string }

// object reports whether the service is one of those that store objects: S3 and its kin. They read paths as they are
// and take content that is not signed.
func (s scope) object() bool {
	return s.service == "s3" || s.service == "s3express" || strings.HasPrefix(s.service, "s3-")
}

// appendTo appends the credential scope for a day.
func (s scope) appendTo(b []byte, day string) []byte {
	b = append(append(b, day...), '/')
	if s.region != "" {
		b = append(append(b, s.region...), '/')
	}
	b = append(b, s.service...)
	return append(b, "/"+awsEnd...)
}

// An awsKey is the key that one day's requests in one scope are signed with. It is derived from the secret and
// wiped after use.
type awsKey struct {
	time    string // of the request, as X-Amz-Date has it
	in      scope
	key     [sha256.Size]byte
	private *ecdsa.PrivateKey // of Signature Version 4A, instead of key; else nil
}

// algorithm is what requests are signed by.
func (k *awsKey) algorithm() string {
	if k.private != nil {
		return awsAsymmetric
	}
	return awsAlgorithm
}

// deriveKey derives the key of the day that now lies in.
func deriveKey(secretKey []byte, in scope, now time.Time) *awsKey {
	k := &awsKey{time: now.UTC().Format(awsTime), in: in}
	first := make([]byte, 0, 4+len(secretKey))
	first = append(append(first, "AWS4"...), secretKey...)
	defer secret.Wipe(first)
	k.key = hmacSHA256(first, k.day())
	for _, part := range []string{in.region, in.service, awsEnd} {
		k.key = hmacSHA256(k.key[:], part)
	}
	return k
}

func (k *awsKey) day() string { return k.time[:len(awsDay)] }

// sign returns the signature over what hashes to hash, in hex. kind follows the algorithm's name, and extra lines stand before
// the hash: those of a chunk.
func (k *awsKey) sign(kind string, extra []string, hash [sha256.Size]byte) (string, error) {
	b := make([]byte, 0, 512)
	b = append(b, k.algorithm()...)
	b = append(b, kind...)
	b = append(b, '\n')
	b = append(b, k.time...)
	b = append(b, '\n')
	b = k.in.appendTo(b, k.day())
	b = append(b, '\n')
	for _, line := range extra {
		b = append(b, line...)
		b = append(b, '\n')
	}
	b = hex.AppendEncode(b, hash[:])
	if k.private != nil {
		return k.signASN1(sha256.Sum256(b))
	}
	return hexHMAC(k.key[:], b), nil
}

func (k *awsKey) wipe() {
	clear(k.key[:])
	k.private = nil
}

func hmacSHA256(key []byte, text string) (sum [sha256.Size]byte) {
	m := hmac.New(sha256.New, key)
	m.Write([]byte(text))
	m.Sum(sum[:0])
	return sum
}

func hexHMAC(key, text []byte) string {
	m := hmac.New(sha256.New, key)
	m.Write(text)
	var sum [sha256.Size]byte
	var out [2 * sha256.Size]byte
	hex.Encode(out[:], m.Sum(sum[:0]))
	return string(out[:])
}

// withKeys calls f with the parts of a value that control.CheckValue has passed.
func withKeys(value secret.Value, f func(control.AWSKeys) error) error {
	return value.Use(func(b []byte) error {
		k, err := control.ParseAWSKeys(b)
		if err != nil {
			return err
		}
		return f(k)
	})
}
