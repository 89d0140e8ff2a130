package session

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"

	"torno.internal/protocol/control"
	"torno.internal/protocol/transport"
)

// PlaceOf returns where the guest of a session comes from: a Hybrid address, or a VSOCK one with the guest's
// CID and no port. The zero value is a socket of the session's own.
func PlaceOf(r *control.SessionRequest) (transport.Addr, error) {
	if r.NoBootNonce && r.CID == 0 {
		return transport.Addr{}, errors.New("no_boot_nonce is for a CID; a socket needs no nonce")
	}
	return parsePlace(r.Socket, r.CID)
}

func parsePlace(socket string, cid uint32) (transport.Addr, error) {
	switch {
	case socket != "" && cid != 0:
		return transport.Addr{}, errors.New("a VM comes by a socket or by a CID, not by both")
	case cid != 0 && (cid < transport.MinGuestCID || cid > transport.MaxGuestCID):
		return transport.Addr{}, fmt.Errorf("CID %d is not a VM's: those begin at %d", cid, transport.MinGuestCID)
	case cid != 0:
		return transport.Addr{Network: transport.VSOCK, CID: cid}, nil
	case socket == "":
		return transport.Addr{}, nil
	}
	a, err := transport.ParseAddr(socket)
	if err == nil && a.Network != transport.Hybrid {
		err = fmt.Errorf("socket %q: want hybrid:///PATH, with the path of the VMM's vsock socket", socket)
	}
	if err != nil {
		return transport.Addr{}, err
	}
	return a, nil
}

// Place returns where the session's guest comes from, as PlaceOf does.
func (s *Session) Place() transport.Addr {
	a, _ := parsePlace(s.begun.Socket, s.begun.CID) // checked when the record was made, or read
	return a
}

// OwnEgress reports whether the machine may have a network card of its own.
func (s *Session) OwnEgress() bool { return s.begun.OwnEgress }

// checkPlace reports what cannot be of the place where the guest comes from.
func (r *record) checkPlace() error {
	_, err := parsePlace(r.Socket, r.CID)
	if err == nil && len(r.BootHash) != 0 && (r.CID == 0 || len(r.BootHash) != sha256.Size) {
		err = errors.New("a boot nonce's hash that is none")
	}
	return err
}

// CheckBoot reports whether a hello with this boot nonce comes from the machine that the session was made
// for, in constant time. The error is ErrBoot.
func (s *Session) CheckBoot(boot []byte) error {
	if len(s.begun.BootHash) == 0 {
		return nil
	}
	hash := sha256.Sum256(boot)
	if subtle.ConstantTimeCompare(hash[:], s.begun.BootHash) != 1 {
		return ErrBoot
	}
	return nil
}

// Holds reports whether the token with this SHA-256 is the session's, in constant time and without using it.
func (s *Session) Holds(hash [sha256.Size]byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return subtle.ConstantTimeCompare(hash[:], s.rec.TokenHash) == 1
}

// identity says how the guest is told apart.
func (s *Session) identity() string {
	switch b := &s.begun; {
	case b.CID != 0 && len(b.BootHash) == 0:
		return fmt.Sprintf("CID only: %d, without a boot nonce", b.CID)
	case b.CID != 0:
		return fmt.Sprintf("CID %d and a boot nonce", b.CID)
	case b.Socket != "":
		return fmt.Sprintf("the VMM's socket %s, peer uid %d", s.Place().Path, b.PeerUID)
	}
	return fmt.Sprintf("own socket, peer uid %d", s.begun.PeerUID)
}

// containment says what keeps the workload from going elsewhere.
func (s *Session) containment() string {
	if s.begun.OwnEgress {
		return "none: injection without containment, for the VM has a network card of its own"
	}
	return "no network but torno"
}

// Weaknesses are what the person who makes the session should know of it.
func (s *Session) Weaknesses() []string {
	var w []string
	if s.begun.CID != 0 && len(s.begun.BootHash) == 0 {
		w = append(w, "identity: CID only; whoever may open /dev/vhost-vsock can come from a CID whose VM has not started yet")
	}
	if s.begun.OwnEgress {
		w = append(w, "injection without containment: the VM's network card leads past torno")
	}
	return w
}
