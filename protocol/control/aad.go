package control

import (
	"encoding/binary"
	"errors"
	"math"
	"time"
)

// aadFormat is the first byte of the encoding below; another field gets another format.
const aadFormat = 2

// MaxAssociatedData bounds the encoding of a Meta that passes CheckMeta, in bytes.
const MaxAssociatedData = 64 << 10

// maxString bounds one string in the encoding, in bytes: an origin, a template, a name.
const maxString = 2 << 10

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
	num(len(m.Inject.Params))
	for _, p := range m.Inject.Params {
		str(p.Name)
		str(p.Value)
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

var errAssociatedData = errors.New("not the description of a secret")

// DecodeAssociatedData is the inverse of AssociatedData. It accepts nothing that AssociatedData would not
// have written; what the description means is for CheckMeta to judge.
func DecodeAssociatedData(b []byte) (m Meta, keyID string, err error) {
	if len(b) == 0 || len(b) > MaxAssociatedData || b[0] != aadFormat {
		return Meta{}, "", errAssociatedData
	}
	d := aadReader{b: b[1:]}
	keyID, m.Agent, m.Name = d.str(), d.str(), d.str()
	m.Version = d.num(math.MaxInt32)
	if n := d.num(MaxAudience); n > 0 {
		m.Audience = make([]string, n)
		for i := range m.Audience {
			m.Audience[i] = d.str()
		}
	}
	m.Inject.Scheme = d.str()
	if n := d.num(MaxTemplates); n > 0 {
		m.Inject.Fields = make([]FieldTemplate, n)
		for i := range m.Inject.Fields {
			m.Inject.Fields[i] = FieldTemplate{Name: d.str(), Value: d.str()}
		}
	}
	if n := d.num(MaxParams); n > 0 {
		m.Inject.Params = make([]Param, n)
		for i := range m.Inject.Params {
			m.Inject.Params[i] = Param{d.str(), d.str()}
		}
	}
	m.Expose, m.Rotation, m.Preset = Expose(d.str()), Rotation(d.str()), d.str()
	if tail := d.take(9); tail != nil {
		if n := int64(binary.BigEndian.Uint64(tail)); n != 0 {
			m.Created = time.Unix(0, n).UTC()
		}
		m.Weak = tail[8] == 1
		d.bad = d.bad || tail[8] > 1
	}
	if d.bad || len(d.b) > 0 {
		return Meta{}, "", errAssociatedData
	}
	return m, keyID, nil
}

// An aadReader reads the encoding from its beginning. After the first mistake everything is empty.
type aadReader struct {
	b   []byte
	bad bool
}

func (d *aadReader) take(n int) []byte {
	if d.bad || n > len(d.b) {
		d.bad = true
		return nil
	}
	b := d.b[:n]
	d.b = d.b[n:]
	return b
}

// num reads a number of at most limit in its shortest spelling.
func (d *aadReader) num(limit uint64) int {
	v, n := binary.Uvarint(d.b)
	if d.bad || n <= 0 || v > limit || n > 1 && d.b[n-1] == 0 {
		d.bad = true
		return 0
	}
	d.b = d.b[n:]
	return int(v)
}

func (d *aadReader) str() string { return string(d.take(d.num(maxString))) }
