package session

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"slices"

	"torno.internal/protocol"
	"torno.internal/protocol/secret"
)

// Hello answers a guest's hello with the session's token. Until that token is first used, the same nonce
// gets the same token again, so that a lost answer costs nothing, even if the broker starts anew between
// the two. After that, hello is refused for ever: a second guest, such as a clone restored from a
// snapshot, is not let in. The error is ErrEnded, ErrHelloUsed, ErrNonce or one of storing.
func (s *Session) Hello(nonce []byte) (protocol.Token, error) {
	if len(nonce) != protocol.NonceSize {
		return protocol.Token{}, fmt.Errorf("nonce of %d bytes, not %d", len(nonce), protocol.NonceSize)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.stateLocked().over():
		return protocol.Token{}, ErrEnded
	case s.rec.TokenUsed:
		return protocol.Token{}, ErrHelloUsed
	case s.rec.Nonce == nil:
		return s.firstHello(nonce)
	case subtle.ConstantTimeCompare(s.rec.Nonce, nonce) != 1:
		return protocol.Token{}, ErrNonce
	}
	return protocol.Token(s.rec.Token), nil
}

func (s *Session) firstHello(nonce []byte) (protocol.Token, error) {
	var token protocol.Token
	_, _ = rand.Read(token[:]) // never fails: crypto/rand ends the process instead
	hash := sha256.Sum256(token[:])
	err := s.update(func(r *record) {
		r.State, r.Nonce = StateLive, slices.Clone(nonce)
		r.Token, r.TokenHash = slices.Clone(token[:]), hash[:]
	})
	if err != nil {
		return protocol.Token{}, err
	}
	return token, nil
}

// HelloUsed reports whether a hello was answered and its token used, so that no other will be answered.
func (s *Session) HelloUsed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rec.TokenUsed
}

// UseToken reports whether token is the session's, in constant time. The first use is on record before
// it returns; from then on the session keeps the token's hash alone. The error is ErrEnded, ErrToken or
// one of storing.
func (s *Session) UseToken(token protocol.Token) error {
	hash := sha256.Sum256(token[:])
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stateLocked().over() {
		return ErrEnded
	}
	if subtle.ConstantTimeCompare(hash[:], s.rec.TokenHash) != 1 {
		return ErrToken
	}
	if s.rec.TokenUsed {
		return nil
	}
	plain := s.rec.Token
	if err := s.update(func(r *record) { r.Token, r.TokenUsed = nil, true }); err != nil {
		return err
	}
	secret.Wipe(plain)
	return nil
}
