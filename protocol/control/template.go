package control

import (
	"fmt"
	"strings"

	"torno.internal/protocol"
)

// A Template is a parsed FieldTemplate.Value: what stands before the secret and after it.
type Template struct{ Prefix, Suffix string }

// ParseTemplate reads the value of a FieldTemplate for the secret called key. It holds {key} exactly
// once, and visible ASCII and inner spaces otherwise. Other braces are literal, but not around the name
// of another secret: that is a slip of the pen.
func ParseTemplate(key, value string) (Template, error) {
	if len(value) > MaxTemplate {
		return Template{}, fmt.Errorf("template of %d bytes, at most %d fit", len(value), MaxTemplate)
	}
	hole := "{" + key + "}"
	prefix, suffix, found := strings.Cut(value, hole)
	switch {
	case !found:
		return Template{}, fmt.Errorf("template %q lacks %s, where the value goes", value, hole)
	case strings.Contains(suffix, hole):
		return Template{}, fmt.Errorf("template %q has %s more than once", value, hole)
	}
	for _, part := range []string{prefix, suffix} {
		if other, ok := otherHole(part); ok {
			return Template{}, fmt.Errorf("template %q names {%s}, but the secret is %s", value, other, key)
		}
	}
	if i := badFieldByte([]byte(value)); i >= 0 {
		return Template{}, fmt.Errorf("template %q: byte %q cannot stand in a field", value, value[i])
	}
	if strings.HasPrefix(value, " ") || strings.HasSuffix(value, " ") {
		return Template{}, fmt.Errorf("template %q begins or ends with a space", value)
	}
	return Template{prefix, suffix}, nil
}

// ParseHeader reads "Name: value", as --header takes it, for the secret called key.
func ParseHeader(key, line string) (FieldTemplate, error) {
	name, value, ok := strings.Cut(line, ":")
	if !ok {
		return FieldTemplate{}, fmt.Errorf("header %q is not NAME: VALUE", line)
	}
	t := FieldTemplate{Name: strings.ToLower(name), Value: strings.Trim(value, " \t")}
	if err := checkFieldName(t.Name); err != nil {
		return FieldTemplate{}, err
	}
	_, err := ParseTemplate(key, t.Value)
	if err != nil {
		return FieldTemplate{}, err
	}
	return t, nil
}

// otherHole returns the first {KEY} in s.
func otherHole(s string) (string, bool) {
	for {
		_, rest, ok := strings.Cut(s, "{")
		if !ok {
			return "", false
		}
		if inner, _, closed := strings.Cut(rest, "}"); closed && ValidKey(inner) {
			return inner, true
		}
		s = rest
	}
}

// badFieldByte returns the index of the first byte that is neither visible ASCII nor a space, or -1.
func badFieldByte(b []byte) int {
	for i, c := range b {
		if c < ' ' || c >= 0x7f {
			return i
		}
	}
	return -1
}

// isReserved reports whether no secret may be put into the field called name, in lower case: it ends at a
// hop, frames the message, routes it, or negotiates what the broker must be able to read.
func isReserved(name string) bool {
	switch name {
	case "accept-encoding", "content-encoding", "content-length", "content-type", "date", "expect", "forwarded",
		"http2-settings", "if-range", "max-forwards", "proxy-authenticate", "proxy-authentication-info",
		"proxy-authorization", "range", "te", "trailer", "via":
		return true
	}
	return protocol.IsConnectionField(name) || strings.HasPrefix(name, "torno-") || strings.HasPrefix(name, "sec-websocket-")
}

// checkFieldName accepts a field name, in any case, that a secret may be put into.
func checkFieldName(name string) error {
	if !protocol.IsToken(name) || len(name) > protocol.MaxFieldName {
		return fmt.Errorf("header name %q is not a field name", name)
	}
	if isReserved(strings.ToLower(name)) {
		return fmt.Errorf("header %q belongs to the connection, the message or torno itself; a secret cannot go there", name)
	}
	return nil
}
