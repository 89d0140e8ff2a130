package session

import (
	"bytes"
	"errors"
	"sync"
	"testing"

	"torno.internal/protocol"
)

func nonce(b byte) []byte { return bytes.Repeat([]byte{b}, protocol.NonceSize) }

// TestHello holds that a lost answer costs nothing until the token is used, across restarts too.
func TestHello(t *testing.T) {
	m := newMemory()
	s := newTestSession(t, m)
	token, err := s.Hello(nonce(1))
	if err != nil || token == (protocol.Token{}) || s.State() != StateLive || s.HelloUsed() {
		t.Fatalf("Hello = %v, state %s", err, s.State())
	}
	for name, s := range map[string]*Session{"the same broker": s, "the next broker": reload(t, m, s)} {
		if again, err := s.Hello(nonce(1)); err != nil || again != token {
			t.Errorf("%s: the same nonce gets another answer: %v", name, err)
		}
	}
	s = reload(t, m, s)
	for range 3 {
		if err := s.UseToken(token); err != nil {
			t.Fatal(err)
		}
	}
	if err := reload(t, m, s).UseToken(token); err != nil {
		t.Errorf("the token after a restart: %v", err)
	}
	if bytes.Contains(m.kept[s.ID()], []byte(`"token":`)) {
		t.Error("the record keeps a used token")
	}
}

func TestAttack1NoToken(t *testing.T) {
	s := newTestSession(t, newMemory())
	for _, when := range []string{"before hello", "after hello"} {
		for _, token := range []protocol.Token{{}, {1}} {
			if err := s.UseToken(token); !errors.Is(err, ErrToken) {
				t.Errorf("%s: token %x: %v", when, token[:1], err)
			}
		}
		if _, err := s.Hello(nonce(1)); err != nil {
			t.Fatal(err)
		}
	}
	if s.HelloUsed() {
		t.Error("a wrong token ends the time in which hello may be repeated")
	}
}

func TestAttack3SecondHello(t *testing.T) {
	m := newMemory()
	s := newTestSession(t, m)
	token, err := s.Hello(nonce(1))
	if err != nil {
		t.Fatal(err)
	}
	refused := func(when string, n []byte, want error) {
		t.Helper()
		for name, s := range map[string]*Session{"this broker": s, "the next broker": reload(t, m, s)} {
			if got, err := s.Hello(n); !errors.Is(err, want) || got != (protocol.Token{}) {
				t.Errorf("%s, %s: Hello = %v, want %v", when, name, err, want)
			}
		}
	}
	refused("another nonce", nonce(2), ErrNonce)
	if err := s.UseToken(token); err != nil {
		t.Fatal(err)
	}
	refused("the nonce replayed after use", nonce(1), ErrHelloUsed)
	refused("another nonce after use", nonce(2), ErrHelloUsed)
	if err := s.UseToken(token); err != nil {
		t.Errorf("the first guest's token after all this: %v", err)
	}
	for _, n := range [][]byte{nil, {}, nonce(1)[1:], append(nonce(1), 1)} {
		if _, err := newTestSession(t, m).Hello(n); err == nil {
			t.Errorf("a nonce of %d bytes is answered", len(n))
		}
	}
}

func TestAttack3TokenOfAnotherSession(t *testing.T) {
	m := newMemory()
	a, b := newTestSession(t, m), newTestSession(t, m)
	tokenA, err := a.Hello(nonce(1))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.UseToken(tokenA); !errors.Is(err, ErrToken) {
		t.Errorf("a's token on b, which waits: %v", err)
	}
	tokenB, err := b.Hello(nonce(1)) // a clone of a's machine has a's nonce
	if err != nil || tokenB == tokenA {
		t.Fatalf("b answers with a's token, or %v", err)
	}
	if err := b.UseToken(tokenA); !errors.Is(err, ErrToken) {
		t.Errorf("a's token on b, which lives: %v", err)
	}
	if err := errors.Join(a.UseToken(tokenA), b.UseToken(tokenB)); err != nil {
		t.Error(err)
	}
}

// TestAttack5DeadSession holds that a session which comes after another, with the same request and so on
// the same socket, inherits nothing.
func TestAttack5DeadSession(t *testing.T) {
	m := newMemory()
	dead := newTestSession(t, m)
	token, err := dead.Hello(nonce(1))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(dead.UseToken(token), dead.End()); err != nil {
		t.Fatal(err)
	}
	next := newTestSession(t, m)
	if err := next.UseToken(token); !errors.Is(err, ErrToken) {
		t.Errorf("the dead session's token: %v", err)
	}
	if got, err := next.Hello(nonce(1)); err != nil || got == token {
		t.Errorf("the dead session's nonce gets its token, or %v", err)
	}
	if err := next.UseToken(token); !errors.Is(err, ErrToken) {
		t.Errorf("the dead session's token after hello: %v", err)
	}
	if bytes.Equal(next.CAPEM(), dead.CAPEM()) || next.Placeholder("ANTHROPIC_API_KEY") == dead.Placeholder("ANTHROPIC_API_KEY") {
		t.Error("the next session has the dead one's CA or placeholders")
	}
	dead = reload(t, m, dead)
	if _, err := dead.Hello(nonce(1)); !errors.Is(err, ErrEnded) || dead.Live() {
		t.Errorf("the dead session answers: %v", err)
	}
}

// TestNotStoredNotAnswered holds that nothing is answered that a restart would forget.
func TestNotStoredNotAnswered(t *testing.T) {
	m := newMemory()
	s := newTestSession(t, m)
	full := errors.New("disk full")
	m.broken = full
	if token, err := s.Hello(nonce(1)); !errors.Is(err, full) || token != (protocol.Token{}) {
		t.Errorf("Hello = %v", err)
	}
	m.broken = nil
	token, err := s.Hello(nonce(2))
	if err != nil {
		t.Fatalf("hello once the disk has room: %v", err)
	}
	m.broken = full
	if err := s.UseToken(token); !errors.Is(err, full) || s.HelloUsed() {
		t.Errorf("UseToken = %v", err)
	}
	m.broken = nil
	if again, err := s.Hello(nonce(2)); err != nil || again != token {
		t.Errorf("hello repeated: %v", err)
	}
	if err := s.UseToken(token); err != nil {
		t.Error(err)
	}
}

func TestConcurrentHello(t *testing.T) {
	m := newMemory()
	s := newTestSession(t, m)
	key := leafKey(t)
	var wg sync.WaitGroup
	tokens := make(chan protocol.Token, 16)
	for i := range 16 {
		wg.Go(func() {
			if token, err := s.Hello(nonce(byte(i % 2))); err == nil {
				tokens <- token
				_ = s.UseToken(token)
			}
			_, _, _ = s.IssueLeaf("example.org", key)
			s.Count(Counters{Requests: 1})
			_, _ = s.Info(), s.Live()
		})
	}
	wg.Wait()
	close(tokens)
	first := <-tokens
	for token := range tokens {
		if token != first {
			t.Error("two tokens in one session")
		}
	}
	if got := s.Info().Requests; got != 16 {
		t.Errorf("%d requests counted, want 16", got)
	}
}

func BenchmarkUseToken(b *testing.B) {
	s := newTestSession(b, newMemory())
	token, err := s.Hello(nonce(1))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := s.UseToken(token); err != nil {
			b.Fatal(err)
		}
	}
}
