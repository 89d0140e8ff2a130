package credential

import (
	"crypto/rand"
	"fmt"
	"strconv"
	"strings"

	"torno.internal/protocol/control"
)

// DefaultShape is the shape of placeholders for secrets that no preset knows.
const DefaultShape = "*40"

// Limits on a shape, in characters: as many random ones as nobody guesses, behind the mark.
const (
	minShape = len(control.PlaceholderMark) + 22 // 22 of base62 are 131 bits
	maxShape = 256
)

const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// NewPlaceholder makes a placeholder of the given shape: a literal prefix, then * and the number of
// characters that follow it, "sk-ant-api03-*80". Those begin with control.PlaceholderMark, so that
// people and the broker know a placeholder when they see one, and the rest is random base62. It is made
// for one secret in one session and worth nothing.
func NewPlaceholder(shape string) (string, error) {
	prefix, count, ok := strings.Cut(shape, "*")
	n, err := strconv.Atoi(count)
	if !ok || err != nil || n < minShape || n > maxShape {
		return "", fmt.Errorf("placeholder shape %q: want a prefix, *, and a number from %d to %d", shape, minShape, maxShape)
	}
	return prefix + control.PlaceholderMark + random62(n-len(control.PlaceholderMark)), nil
}

// PlaceholderFor makes a placeholder for the secret called key, in the shape of its preset if it has
// one.
func PlaceholderFor(key string) (string, error) {
	if p, ok := Lookup(key); ok && p.Placeholder != "" {
		return NewPlaceholder(p.Placeholder)
	}
	return NewPlaceholder(DefaultShape)
}

// SharedShape is the shape of placeholders that stand for any secret of a cloud: base64url of whole bytes as well, so that one
// may be the signature of what clients read as a token.
const SharedShape = "*64"

// random62 returns n random characters, each as likely as the others.
func random62(n int) string {
	const fair = 256 - 256%len(base62) // bytes from here on would favour the first characters
	out := make([]byte, 0, n)
	var pool [64]byte
	for len(out) < n {
		_, _ = rand.Read(pool[:]) // never fails: crypto/rand ends the process instead
		for _, c := range pool {
			if int(c) < fair && len(out) < n {
				out = append(out, base62[int(c)%len(base62)])
			}
		}
	}
	return string(out)
}
