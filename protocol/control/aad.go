package control

import (
	"encoding/binary"
	"errors"
	"math"
	"time"
)

// The first byte of the encoding below; another field gets another format. What an earlier format can say is said in it,
// so that each Meta has one encoding.
const (
	aadFormat  = 2
	aadSourced = 3 // with a source behind what set it
)

// MaxAssociatedData bounds the encoding of a Meta that passes CheckMeta, in bytes.
const MaxAssociatedData = 64 << 10

// maxString bounds one string in the encoding, in bytes: an origin, a template, a name.
const maxString = 2 << 10

// AssociatedData returns what a secret's value is sealed with: every field of m and the key's id, each
// string with its length before it, so that no two different Metas have the same encoding. Times count
// in nanoseconds since 1970. The layout is fixed: sealed values outlive this build.
func AssociatedData(m Meta, keyID string) []byte {
	b := []byte{aadFormat}
	if m.Source != "" {
		b[0] = aadSourced
	}
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
	str(m.By)
	if m.Source != "" {
		str(m.Source)
	}
	num(len(m.Replace))
	for _, p := range m.Replace {
		str(string(p))
	}
	b = binary.BigEndian.AppendUint64(b, uint64(nanos(m.Created)))
	b = binary.BigEndian.AppendUint64(b, uint64(nanos(m.Expires)))
	flags := byte(0)
	if m.Weak {
		flags |= flagWeak
	}
	if m.Overlap {
		flags |= flagOverlap
	}
	return append(b, flags)
}

// The bits of the encoding's last byte.
const (
	flagWeak    = 1
	flagOverlap = 2
)

func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func fromNanos(n uint64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(n)).UTC()
}

var errAssociatedData = errors.New("not the description of a secret")

// DecodeAssociatedData is the inverse of AssociatedData. It accepts nothing that AssociatedData would not
// have written; what the description means is for CheckMeta to judge.
func DecodeAssociatedData(b []byte) (m Meta, keyID string, err error) {
	if len(b) == 0 || len(b) > MaxAssociatedData || b[0] != aadFormat && b[0] != aadSourced {
		return Meta{}, "", errAssociatedData
	}
	d := aadReader{b: b[1:], text: string(b[1:])}
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
	m.Expose, m.Rotation, m.Preset, m.By = Expose(d.str()), Rotation(d.str()), d.str(), d.str()
	if b[0] == aadSourced {
		m.Source = d.str()
		d.bad = d.bad || m.Source == ""
	}
	if n := d.num(MaxReplace); n > 0 {
		m.Replace = make([]Place, n)
		for i := range m.Replace {
			m.Replace[i] = Place(d.str())
		}
	}
	if tail := d.take(17); tail != nil {
		m.Created, m.Expires = fromNanos(binary.BigEndian.Uint64(tail)), fromNanos(binary.BigEndian.Uint64(tail[8:]))
		m.Weak, m.Overlap = tail[16]&flagWeak != 0, tail[16]&flagOverlap != 0
		d.bad = d.bad || tail[16] > flagWeak|flagOverlap
	}
	if d.bad || len(d.b) > 0 {
		return Meta{}, "", errAssociatedData
	}
	return m, keyID, nil
}

// An aadReader reads the encoding from its beginning. After the first mistake everything is empty.
type aadReader struct {
	b    []byte
	text string // what ends where b does, for strings to be parts of: a list of thousands makes one of each entry
	bad  bool
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

func (d *aadReader) str() string {
	n := d.num(maxString)
	at := len(d.text) - len(d.b)
	if d.take(n) == nil {
		return ""
	}
	return d.text[at : at+n]
}
