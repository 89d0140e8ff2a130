package sign

import (
	"errors"

	"torno.internal/protocol/control"
)

// An Away signs with a key that is kept elsewhere, and that nobody here ever has.
type Away interface {
	// Sign returns the signature of message, which is not hashed, by an algorithm as RFC 9421 §3.3 calls it. That of
	// ECDSA is both numbers, one behind the other.
	Sign(algorithm string, message []byte) ([]byte, error)
}

// NewAway returns the signer that m describes, for a key that is kept elsewhere; nil where the scheme wants the key itself.
func NewAway(m control.Meta, a Away) Signer {
	var keys *keyring
	var by algorithm
	signer := New(m)
	switch s := signer.(type) {
	case *message:
		keys, by = &s.keys, s.algorithm
	case *requestToken:
		keys, by = &s.keys, s.alg
	}
	if keys == nil || by.away() == "" {
		return nil
	}
	keys.away = a
	return signer
}

// away returns what an algorithm is called elsewhere; empty: nobody there knows it.
func (a algorithm) away() string {
	for name, known := range messageAlgorithms {
		if known == a {
			return name
		}
	}
	return ""
}

// signAway has text signed where the key is.
func (k key) signAway(text []byte) ([]byte, error) {
	name := k.algorithm.away()
	if name == "" {
		return nil, errors.New("no algorithm for a key that is kept elsewhere")
	}
	return k.elsewhere.Sign(name, text)
}
