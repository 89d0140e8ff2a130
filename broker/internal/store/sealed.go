package store

import (
	"bytes"
	"encoding/binary"
	"errors"

	"torno.internal/protocol/control"
	"torno.internal/protocol/seal"
)

// A stored secret is what its value was sealed with, so that it can be listed without being opened, and
// the sealed value:
//
//	format (1) | length | associated data | sealed value
const recordFormat = 1

var errRecord = errors.New("the stored secret is malformed")

func encodeRecord(sec *control.SealedSecret) ([]byte, error) {
	aad := control.AssociatedData(sec.Meta, sec.KeyID)
	if _, _, err := control.DecodeAssociatedData(aad); err != nil {
		return nil, err // it could not be read back
	}
	b := binary.AppendUvarint([]byte{recordFormat}, uint64(len(aad)))
	return append(append(b, aad...), sec.Sealed...), nil
}

// decodeRecord reads what encodeRecord wrote. The result shares no memory with b.
func decodeRecord(b []byte) (control.SealedSecret, error) {
	aad, sealed, err := splitRecord(b)
	if err != nil {
		return control.SealedSecret{}, err
	}
	m, id, err := control.DecodeAssociatedData(aad)
	if err != nil {
		return control.SealedSecret{}, errRecord
	}
	return control.SealedSecret{Meta: m, KeyID: id, Sealed: bytes.Clone(sealed)}, nil
}

// decodeMeta is decodeRecord without the value, for lists.
func decodeMeta(b []byte) (control.Meta, error) {
	aad, _, err := splitRecord(b)
	if err != nil {
		return control.Meta{}, err
	}
	m, _, err := control.DecodeAssociatedData(aad)
	if err != nil {
		return control.Meta{}, errRecord
	}
	return m, nil
}

func splitRecord(b []byte) (aad, sealed []byte, err error) {
	r := reader{b: b}
	if r.octet() != recordFormat {
		return nil, nil, errRecord
	}
	aad = r.take(int(r.number(control.MaxAssociatedData)))
	if r.bad || len(r.b) > seal.MaxSealed {
		return nil, nil, errRecord
	}
	return aad, r.b, nil
}
