package control

import (
	"encoding/binary"
	"time"
)

// aadFormat is the first byte of the encoding below; another field gets another format.
const aadFormat = 1

// AssociatedData returns what a secret's value is sealed with: every field of m and the key's id, each
// string with its length before it, so that no two different Metas have the same encoding. Times count
// in nanoseconds since 1970. The layout is fixed: sealed values outlive this build.
func AssociatedData(m Meta, keyID string) []byte {
	b := []byte{aadFormat}
	str := func(s string) {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	num := func(n int) { b = binary.AppendUvarint(b, uint64(n)) }
	str(keyID)
	str(m.Agent)
	str(m.Name)
	num(m.Version)
	num(len(m.Audience))
	for _, a := range m.Audience {
		str(a)
	}
	str(m.Inject.Scheme)
	num(len(m.Inject.Fields))
	for _, f := range m.Inject.Fields {
		str(f.Name)
		str(f.Value)
	}
	str(string(m.Expose))
	str(string(m.Rotation))
	str(m.Preset)
	b = binary.BigEndian.AppendUint64(b, uint64(nanos(m.Created)))
	if m.Weak {
		return append(b, 1)
	}
	return append(b, 0)
}

func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}
