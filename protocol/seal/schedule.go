package seal

import (
	"bytes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"

	"github.com/cloudflare/circl/hpke"
	"golang.org/x/crypto/chacha20poly1305"
)

// A schedule makes the key of a message out of a shared secret: KeySchedule of RFC 9180 §5.1, in base mode, with
// HKDF-SHA256 and ChaCha20-Poly1305. circl has it too, in one step with the KEM; that step takes three times as long,
// because of what clearUpper is about. Tests compare the two, and the vectors.
type schedule struct {
	suite   []byte
	context []byte
}

// newSchedule computes what is the same for all messages.
func newSchedule(kem hpke.KEM, info []byte) *schedule {
	s := &schedule{suite: []byte("HPKE")}
	for _, id := range []uint16{uint16(kem), uint16(hpke.KDF_HKDF_SHA256), uint16(hpke.AEAD_ChaCha20Poly1305)} {
		s.suite = binary.BigEndian.AppendUint16(s.suite, id)
	}
	const base = 0
	s.context = append(s.context, base)
	s.context = append(s.context, s.extract(nil, "psk_id_hash", nil)...)
	s.context = append(s.context, s.extract(nil, "info_hash", info)...)
	return s
}

// labeled returns what stands before what is labelled.
func (s *schedule) labeled(b []byte, label string) []byte {
	return append(append(append(b, "HPKE-v1"...), s.suite...), label...)
}

// extract is LabeledExtract.
func (s *schedule) extract(salt []byte, label string, ikm []byte) []byte {
	prk, err := hkdf.Extract(sha256.New, append(s.labeled(nil, label), ikm...), salt)
	if err != nil {
		panic(err) // not with this hash
	}
	return prk
}

// expand is LabeledExpand.
func (s *schedule) expand(prk []byte, label string, n int) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(n))
	out, err := hkdf.Expand(sha256.New, prk, string(append(s.labeled(b, label), s.context...)), n)
	if err != nil {
		panic(err) // not of so few bytes
	}
	return out
}

// first returns the AEAD and the nonce of the first message of a shared secret, which the caller wipes.
func (s *schedule) first(shared []byte) (cipher.AEAD, []byte) {
	clearUpper()
	prk := s.extract(shared, "secret", nil)
	key := s.expand(prk, "key", chacha20poly1305.KeySize)
	defer clear(prk)
	defer clear(key)
	a, err := chacha20poly1305.New(key)
	if err != nil {
		panic(err) // not with a key of this size
	}
	return a, s.expand(prk, "base_nonce", chacha20poly1305.NonceSize)
}

// Two arrays that are the same, for clearUpper.
var upperA, upperB [128]byte

// clearUpper has the processor forget the upper halves of its vector registers. circl's AVX2 code for ML-KEM leaves
// them in use, and until an instruction clears them (VZEROUPPER) some processors run the standard library's SHA-256,
// which uses the older SHA extensions, a hundred times as slow (measured: 4 KiB in 250 µs, not 2.5). Comparing bytes clears
// them; without AVX2 nothing has to.
//
//go:noinline
func clearUpper() bool { return bytes.Equal(upperA[:], upperB[:]) }
