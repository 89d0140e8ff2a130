// Package secret holds the one type that secret bytes live in. It prints as [redacted] through every
// verb and marshaller, so that a secret reaches a log, an error or a dump only by an explicit Use.
package secret

import (
	"fmt"
	"io"
	"log/slog"
)

const redacted = "[redacted]"

// A Value holds secret bytes. The zero value is an empty secret. Copies share the bytes, so wiping one
// wipes all. It is safe for concurrent Use; Wipe must not run at the same time as Use.
type Value struct{ b *[]byte }

// New returns a Value that owns b; the caller must not touch b again.
func New(b []byte) Value { return Value{&b} }

// Use calls f with the bytes and returns its error. The slice is valid until f returns and must not be
// kept or changed.
func (v Value) Use(f func([]byte) error) error {
	if v.b == nil {
		return f(nil)
	}
	return f(*v.b)
}

// AppendTo appends the bytes to b. The caller wipes b.
func (v Value) AppendTo(b []byte) []byte {
	if v.b == nil {
		return b
	}
	return append(b, *v.b...)
}

// Len returns the length in bytes.
func (v Value) Len() int {
	if v.b == nil {
		return 0
	}
	return len(*v.b)
}

// Wipe overwrites the bytes and empties the value. Go's runtime may have copied them before; this is
// best effort.
func (v Value) Wipe() {
	if v.b != nil {
		Wipe(*v.b)
		*v.b = nil
	}
}

// Wipe overwrites b, up to its capacity, with zeros.
func Wipe(b []byte) { clear(b[:cap(b)]) }

// The methods of fmt, log/slog and every encoding package print [redacted].

func (Value) String() string { return redacted }

// GoString implements fmt.GoStringer.
func (Value) GoString() string { return redacted }

// Format implements fmt.Formatter, for every verb.
func (Value) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue implements slog.LogValuer.
func (Value) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText implements encoding.TextMarshaler.
func (Value) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalJSON implements json.Marshaler.
func (Value) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// MarshalBinary implements encoding.BinaryMarshaler.
func (Value) MarshalBinary() ([]byte, error) { return []byte(redacted), nil }

// GobEncode implements gob.GobEncoder.
func (Value) GobEncode() ([]byte, error) { return []byte(redacted), nil }
