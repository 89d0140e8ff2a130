package control

import (
	"bytes"
	"encoding/binary"
	"errors"
)

// A sealed secret as bytes, in the store and on its way from another machine, is what its value was sealed with,
// so that it can be described without being opened, and the sealed value:
//
//	format (1) | length | associated data | sealed value
const sealedFormat = 1

// MaxSealed bounds a sealed value, in bytes: protocol/seal's format, encapsulated key, value and tag.
const MaxSealed = 1 + 1120 + MaxValue + 16

var errSealed = errors.New("not a sealed secret")

// EncodeSealed returns a sealed secret as bytes.
func EncodeSealed(s SealedSecret) ([]byte, error) {
	aad := AssociatedData(s.Meta, s.KeyID)
	if _, _, err := DecodeAssociatedData(aad); err != nil || len(s.Sealed) > MaxSealed {
		return nil, errSealed // it could not be read back
	}
	b := binary.AppendUvarint([]byte{sealedFormat}, uint64(len(aad)))
	return append(append(b, aad...), s.Sealed...), nil
}

// DecodeSealed reads what EncodeSealed wrote, and nothing else. The result shares no memory with b.
func DecodeSealed(b []byte) (SealedSecret, error) {
	m, keyID, sealed, err := splitSealed(b)
	if err != nil {
		return SealedSecret{}, err
	}
	return SealedSecret{Meta: m, KeyID: keyID, Sealed: bytes.Clone(sealed)}, nil
}

// DecodeSealedMeta is DecodeSealed without the value, for lists.
func DecodeSealedMeta(b []byte) (m Meta, keyID string, err error) {
	m, keyID, _, err = splitSealed(b)
	return m, keyID, err
}

func splitSealed(b []byte) (m Meta, keyID string, sealed []byte, err error) {
	if len(b) == 0 || b[0] != sealedFormat {
		return Meta{}, "", nil, errSealed
	}
	r := aadReader{b: b[1:]}
	aad := r.take(r.num(MaxAssociatedData))
	if r.bad || len(r.b) > MaxSealed {
		return Meta{}, "", nil, errSealed
	}
	m, keyID, err = DecodeAssociatedData(aad)
	if err != nil {
		return Meta{}, "", nil, errSealed
	}
	return m, keyID, r.b, nil
}

// An Import is secrets that were sealed on another machine. Their versions are 0, for whichever is next, or the
// ones that they must become.
type Import struct {
	Agent   string         `json:"agent,omitempty"` // whose they must be; empty: whose they are
	Secrets []SealedSecret `json:"secrets"`
}

// MaxImport is how many secrets one Import takes.
const MaxImport = 64
