package session

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"torno.internal/protocol"
)

// leafBurst is how many leaves may be had at once, before LeafRate holds: a browser's first page.
const leafBurst = 64

// leafReserve is how many leaves are counted on record at once, so that not each costs a commit. A
// broker that starts again counts those of the last reserve as issued.
const leafReserve = 64

// leafKeySize is the length in bytes of a P-256 public key in PKIX DER, uncompressed: its only spelling.
const leafKeySize = 91

// IssueLeaf signs a server certificate for one name or IP address with the guest's own public key, a
// P-256 key in PKIX DER. Everything else in it is ours. It returns the certificate in DER and its end.
// The error is a *protocol.RefusedError: ReasonBadAuthority, ReasonBadRequest for the key,
// ReasonRateLimited above LeafRate a second or MaxLeaves in the session, ReasonSessionEnded.
func (s *Session) IssueLeaf(name string, key []byte) (der []byte, notAfter time.Time, err error) {
	host, err := protocol.ParseHost(name)
	if err != nil {
		return nil, time.Time{}, protocol.Refuse(protocol.ReasonBadAuthority, err)
	}
	public, err := parseLeafKey(key)
	if err != nil {
		return nil, time.Time{}, protocol.Refuse(protocol.ReasonBadRequest, err)
	}
	now := time.Now()
	caKey, err := s.takeLeaf(now)
	if err != nil {
		return nil, time.Time{}, err
	}
	template := leafTemplate(host, now, s.ca.notAfter)
	der, err = x509.CreateCertificate(rand.Reader, template, s.ca.parent(), public, caKey)
	if err != nil {
		return nil, time.Time{}, protocol.Refuse(protocol.ReasonInternal, err)
	}
	return der, template.NotAfter, nil
}

// takeLeaf counts one leaf and returns the CA's key.
func (s *Session) takeLeaf(now time.Time) (*ecdsa.PrivateKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.stateLocked().over():
		return nil, protocol.Refuse(protocol.ReasonSessionEnded, ErrEnded)
	case s.issued >= protocol.MaxLeaves:
		return nil, protocol.Refuse(protocol.ReasonRateLimited, fmt.Errorf("%d leaf certificates issued", s.issued))
	case !s.leaves.take(now):
		return nil, protocol.Refuse(protocol.ReasonRateLimited, errors.New("leaf certificates wanted too fast"))
	}
	if s.issued == s.rec.Leaves {
		err := s.update(func(r *record) { r.Leaves = min(r.Leaves+leafReserve, protocol.MaxLeaves) })
		if err != nil {
			return nil, protocol.Refuse(protocol.ReasonInternal, err)
		}
	}
	s.issued++
	return s.caKey, nil
}

// leafTemplate is what every leaf looks like. host is canonical and the only name in it.
func leafTemplate(host string, now, caEnd time.Time) *x509.Certificate {
	end := now.Add(protocol.LeafLifetime)
	if end.After(caEnd) {
		end = caEnd
	}
	t := &x509.Certificate{
		Subject:               pkix.Name{Organization: []string{organization}},
		NotBefore:             now.Add(-protocol.LeafBackdate).UTC().Truncate(time.Second),
		NotAfter:              end.UTC().Truncate(time.Second),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		t.IPAddresses = []net.IP{ip.AsSlice()}
	} else {
		t.DNSNames = []string{host}
	}
	return t
}

// parseLeafKey reads the guest's public key and accepts its one spelling.
func parseLeafKey(der []byte) (*ecdsa.PublicKey, error) {
	if len(der) != leafKeySize {
		return nil, fmt.Errorf("public key of %d bytes; P-256 in PKIX DER has %d", len(der), leafKeySize)
	}
	parsed, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	key, ok := parsed.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("public key is not of P-256")
	}
	if again, err := x509.MarshalPKIXPublicKey(key); err != nil || !bytes.Equal(again, der) {
		return nil, errors.New("public key is not in its canonical form")
	}
	return key, nil
}

// A bucket is a token bucket that holds leafBurst leaves and refills at protocol.LeafRate a second. The
// zero value is full.
type bucket struct {
	spent float64 // leaves taken that have not come back
	at    time.Time
}

func (b *bucket) take(now time.Time) bool {
	if elapsed := now.Sub(b.at).Seconds(); elapsed > 0 {
		b.spent = max(0, b.spent-elapsed*protocol.LeafRate)
		b.at = now
	}
	if b.spent > leafBurst-1 {
		return false
	}
	b.spent++
	return true
}
