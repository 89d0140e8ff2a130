package audit

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/cloudflare/circl/sign/mldsa/mldsa65"

	"torno.internal/protocol/control"
)

// SeedSize is the length of a signer's seed in bytes: 32 for Ed25519 (RFC 8032), 32 for ML-DSA-65 (FIPS 204).
const SeedSize = ed25519.SeedSize + mldsa65.SeedSize

// signContext stands before everything that is signed, so that no signature passes for one of anything else.
const signContext = "torno audit checkpoint v1\n"

// signaturesMember is where the signed part of a checkpoint's line ends.
const signaturesMember = `,"ed25519":"`

// A Signer signs checkpoints, twice: either signature alone would do until the day that somebody can forge it.
type Signer struct {
	ed     ed25519.PrivateKey
	ml     *mldsa65.PrivateKey
	public control.AuditKeys
	ids    [2]string
}

// NewSigner makes the keys of a seed, which the caller may wipe afterwards.
func NewSigner(seed []byte) (*Signer, error) {
	if len(seed) != SeedSize {
		return nil, fmt.Errorf("seed of %d bytes, want %d", len(seed), SeedSize)
	}
	s := &Signer{ed: ed25519.NewKeyFromSeed(seed[:ed25519.SeedSize])}
	var ml [mldsa65.SeedSize]byte
	copy(ml[:], seed[ed25519.SeedSize:])
	defer clear(ml[:])
	public, private := mldsa65.NewKeyFromSeed(&ml)
	s.ml = private
	s.public = control.AuditKeys{Ed25519: s.ed.Public().(ed25519.PublicKey), MLDSA65: public.Bytes()}
	s.ids = KeyIDs(s.public)
	return s, nil
}

// Public returns the keys that the signatures are verified with.
func (s *Signer) Public() control.AuditKeys { return s.public }

// Format keeps the keys out of whatever prints, for every verb.
func (*Signer) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[redacted]") }

// appendSigned appends to the line of a checkpoint who signs it, and the signatures of all that stands before them.
func (s *Signer) appendSigned(line []byte) []byte {
	line = appendPair(line, "ed25519_key", s.ids[0])
	line = appendPair(line, "mldsa65_key", s.ids[1])
	message := append([]byte(signContext), line...)
	var ml [mldsa65.SignatureSize]byte
	if err := mldsa65.SignTo(s.ml, message, nil, true, ml[:]); err != nil {
		panic(err) // only for a context that is too long
	}
	line = appendPair(line, "ed25519", base64.StdEncoding.EncodeToString(ed25519.Sign(s.ed, message)))
	return appendPair(line, "mldsa65", base64.StdEncoding.EncodeToString(ml[:]))
}

// KeyIDs returns the first 16 hex digits of each key's SHA-256: of Ed25519's, and of ML-DSA-65's.
func KeyIDs(k control.AuditKeys) [2]string {
	id := func(b []byte) string {
		sum := sha256.Sum256(b)
		return hex.EncodeToString(sum[:8])
	}
	return [2]string{id(k.Ed25519), id(k.MLDSA65)}
}

// A verifier verifies checkpoints.
type verifier struct {
	ed  ed25519.PublicKey
	ml  mldsa65.PublicKey
	ids [2]string
}

func newVerifier(k control.AuditKeys) (*verifier, error) {
	v := &verifier{ed: k.Ed25519, ids: KeyIDs(k)}
	if len(k.Ed25519) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("Ed25519 key of %d bytes, want %d", len(k.Ed25519), ed25519.PublicKeySize)
	}
	if err := v.ml.UnmarshalBinary(k.MLDSA65); err != nil {
		return nil, fmt.Errorf("ML-DSA-65 key of %d bytes, want %d", len(k.MLDSA65), mldsa65.PublicKeySize)
	}
	return v, nil
}

// verify checks both signatures of a checkpoint's line, which reads r.
func (v *verifier) verify(line []byte, r *control.AuditRecord) error {
	signed, _, found := bytes.Cut(line, []byte(signaturesMember))
	ed, err := base64.StdEncoding.Strict().DecodeString(r.Ed25519Sig)
	ml, merr := base64.StdEncoding.Strict().DecodeString(r.MLDSA65Sig)
	message := append([]byte(signContext), signed...)
	switch {
	case r.Type != control.AuditCheckpoint || !found:
		return errors.New("it is no checkpoint")
	case r.Ed25519Key != v.ids[0] || r.MLDSA65Key != v.ids[1]:
		return fmt.Errorf("it is signed with keys %s and %s, not with %s and %s", r.Ed25519Key, r.MLDSA65Key, v.ids[0], v.ids[1])
	case err != nil || !ed25519.Verify(v.ed, message, ed):
		return errors.New("its Ed25519 signature is wrong")
	case merr != nil || !mldsa65.Verify(&v.ml, message, nil, ml):
		return errors.New("its ML-DSA-65 signature is wrong")
	}
	return nil
}
