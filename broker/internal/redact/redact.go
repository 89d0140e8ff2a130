// Package redact keeps secrets out of what comes back from an upstream. It masks, in place and with the
// same length, every run of R or more consecutive bytes of a secret's random part, in every encoding of
// one table, across the borders of chunks, frames and flushes, and holds nothing back: up to R-1 bytes of
// a run that has just begun have flowed already when the rest of it is masked.
//
// The guarantee is exactly that: no run of R consecutive random bytes, in any encoding of [Encodings],
// stands in what went out. A value that the upstream reverses, encrypts or cuts into pieces shorter than R
// is not recognised.
package redact

import (
	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// Bounds of R, the length of a run that may not cross.
const (
	minRun = 8  // bytes
	maxRun = 12 // bytes
)

// Run returns R for a secret with n random bytes: half of them, at least 8 and at most 12.
func Run(n int) int { return min(max(n/2, minRun), maxRun) }

// A Secret is one value to be masked. It must stay unwiped until its Matchers are made.
type Secret struct {
	Value    secret.Value
	Prefixes []string // public beginnings of such values, which are no part of the secret
}

// random calls f with the secret's random part and whether that is too short or too simple to be searched
// for in text. The slice is valid until f returns.
func (s Secret) random(f func(random []byte, weak bool)) {
	_ = s.Value.Use(func(b []byte) error {
		f(control.RandomPart(b, s.Prefixes), control.IsWeak(b, s.Prefixes))
		return nil
	})
}
