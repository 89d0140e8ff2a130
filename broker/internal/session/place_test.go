package session

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"strings"
	"testing"

	"torno.internal/protocol"
	"torno.internal/protocol/transport"
)

// A session of a CID wants the nonce that was made for it, after a restart too, and keeps its hash alone.
func TestBootNonce(t *testing.T) {
	m := newMemory()
	req := request()
	req.RunToken, req.CID, req.Isolation = nil, 42, protocol.IsolationMicroVM
	s, boot, err := New(m, req)
	if err != nil || len(boot) != protocol.NonceSize {
		t.Fatalf("New = %v, %d bytes of nonce", err, len(boot))
	}
	if bytes.Contains(m.kept[s.ID()], boot) || strings.Contains(string(m.kept[s.ID()]), "boot_nonce") {
		t.Error("the record holds the nonce")
	}
	_, other, err := New(m, req)
	if err != nil || bytes.Equal(other, boot) {
		t.Errorf("two sessions have one nonce, or %v", err)
	}
	for name, s := range map[string]*Session{"this broker": s, "the next": reload(t, m, s)} {
		for _, wrong := range [][]byte{nil, {}, boot[1:], append(bytes.Clone(boot), 0), other, make([]byte, protocol.NonceSize)} {
			if err := s.CheckBoot(wrong); !errors.Is(err, ErrBoot) {
				t.Errorf("%s: a nonce of %d bytes that is not the machine's: %v", name, len(wrong), err)
			}
		}
		if err := s.CheckBoot(boot); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if want := (transport.Addr{Network: transport.VSOCK, CID: 42}); s.Place() != want {
			t.Errorf("%s: place %+v", name, s.Place())
		}
	}
	req.NoBootNonce = true
	s, boot, err = New(m, req)
	if err != nil || boot != nil || s.CheckBoot(nil) != nil || len(s.Weaknesses()) != 1 {
		t.Errorf("without a nonce: %v, %v, weaknesses %q", err, boot, s.Weaknesses())
	}
}

func TestHolds(t *testing.T) {
	m := newMemory()
	hash := func(token protocol.Token) [sha256.Size]byte { return sha256.Sum256(token[:]) }
	a, b := newTestSession(t, m), newTestSession(t, m)
	if a.Holds(hash(protocol.Token{})) {
		t.Error("a session that waits holds the empty token")
	}
	token, err := a.Hello(nonce(1))
	if err != nil {
		t.Fatal(err)
	}
	if !a.Holds(hash(token)) || b.Holds(hash(token)) || a.HelloUsed() {
		t.Errorf("a holds it: %v, b does: %v, and it is used: %v", a.Holds(hash(token)), b.Holds(hash(token)), a.HelloUsed())
	}
	if err := a.End(); err != nil || a.Holds(hash(token)) || a.Holds(hash(protocol.Token{})) {
		t.Errorf("an ended session holds a token, or %v", err)
	}
}
