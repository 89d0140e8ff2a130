package protocol

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"unicode/utf8"
)

// DecodeStrict decodes the one JSON value in b into v, a pointer, for requests from the other side of a
// trust boundary. encoding/json matches keys in any case and keeps the last of duplicates, so that two
// parsers could read one body differently; DecodeStrict refuses keys that are unknown, repeated or not in
// the case of their tag, besides bodies over MaxChannelBody, nesting over MaxJSONDepth, invalid UTF-8 and
// anything after the value. On error *v is unchanged.
func DecodeStrict(b []byte, v any) error { return DecodeStrictMax(b, v, MaxChannelBody) }

// DecodeStrictMax is DecodeStrict for bodies of up to limit bytes.
func DecodeStrictMax(b []byte, v any, limit int) error {
	if len(b) > limit {
		return fmt.Errorf("body of %d bytes, at most %d are read", len(b), limit)
	}
	if !utf8.Valid(b) {
		return errors.New("body is not UTF-8")
	}
	target := reflect.ValueOf(v).Elem()
	w := walk{json.NewDecoder(bytes.NewReader(b))}
	w.UseNumber()
	if err := w.value(target.Type(), 0); err != nil {
		return err
	}
	fresh := reflect.New(target.Type())
	if err := json.Unmarshal(b, fresh.Interface()); err != nil {
		return err
	}
	target.Set(fresh.Elem())
	return nil
}

// A walk goes over a JSON value and the type that it will be decoded into, side by side.
type walk struct{ *json.Decoder }

// value passes one value, at the given depth, of a type that is nil where any will do.
func (w walk) value(t reflect.Type, depth int) error {
	token, err := w.Token()
	if err != nil {
		return fmt.Errorf("reading JSON: %w", err)
	}
	open, ok := token.(json.Delim)
	if !ok {
		return nil
	}
	if depth++; depth > MaxJSONDepth {
		return fmt.Errorf("nested deeper than %d", MaxJSONDepth)
	}
	t = plain(t)
	if open == '[' {
		if t != nil && (t.Kind() == reflect.Slice || t.Kind() == reflect.Array) {
			t = t.Elem()
		} else {
			t = nil
		}
		for w.More() {
			if err := w.value(t, depth); err != nil {
				return err
			}
		}
	} else if err := w.object(t, depth); err != nil {
		return err
	}
	_, err = w.Token()
	return err
}

// object passes the keys and values of an object but not its closing brace.
func (w walk) object(t reflect.Type, depth int) error {
	var fields map[string]reflect.Type
	var elem reflect.Type
	switch {
	case t == nil:
	case t.Kind() == reflect.Struct:
		fields = make(map[string]reflect.Type)
		addFields(fields, t)
	case t.Kind() == reflect.Map:
		elem = t.Elem()
	}
	seen := make(map[string]bool)
	for w.More() {
		token, err := w.Token()
		if err != nil {
			return fmt.Errorf("reading JSON: %w", err)
		}
		key, _ := token.(string)
		if seen[key] {
			return fmt.Errorf("key %q is repeated", key)
		}
		seen[key] = true
		of := elem
		if fields != nil {
			var known bool
			if of, known = fields[key]; !known {
				return fmt.Errorf("key %q is unknown", key)
			}
		}
		if err := w.value(of, depth); err != nil {
			return err
		}
	}
	return nil
}

// addFields adds the keys that encoding/json knows for the struct t.
func addFields(fields map[string]reflect.Type, t reflect.Type) {
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch inner := f.Type; {
		case f.Tag.Get("json") == "-":
		case f.Anonymous && name == "" && plain(inner) != nil && plain(inner).Kind() == reflect.Struct:
			addFields(fields, plain(inner))
		case !f.IsExported():
		case name == "":
			fields[f.Name] = inner
		default:
			fields[name] = inner
		}
	}
}

// plain returns the type behind pointers, or nil for one that decodes itself or takes any value.
func plain(t reflect.Type) reflect.Type {
	for t != nil {
		p := reflect.PointerTo(t)
		if p.Implements(unmarshaler) || p.Implements(textUnmarshaler) || t.Kind() == reflect.Interface {
			return nil
		}
		if t.Kind() != reflect.Pointer {
			return t
		}
		t = t.Elem()
	}
	return nil
}

var (
	unmarshaler     = reflect.TypeFor[json.Unmarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
)
