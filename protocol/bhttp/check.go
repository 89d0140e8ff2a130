package bhttp

import "torno.internal/protocol"

// fieldProtocol is the pseudo-field of extended CONNECT (RFC 8441 §4), the one that RFC 9292 §3.6
// leaves to a field line.
const fieldProtocol = ":protocol"

// checkRequest judges everything but the fields; Reader and Writer both ask it, so neither side can
// send what the other would refuse.
func checkRequest(r *protocol.Request) error {
	switch {
	case len(r.Method) > protocol.MaxMethod:
		return tooLarge("method", protocol.MaxMethod)
	case len(r.Authority) > protocol.MaxAuthority:
		return tooLarge("authority", protocol.MaxAuthority)
	case len(r.Path) > protocol.MaxPath:
		return tooLarge("path", protocol.MaxPath)
	case !protocol.IsToken(r.Method):
		return malformed("method %q", r.Method)
	case !isAuthority(r.Authority):
		return malformed("authority %q", r.Authority)
	case r.Protocol != "" && (r.Method != "CONNECT" || !protocol.IsToken(r.Protocol)):
		return malformed("%s %q of %s", fieldProtocol, r.Protocol, r.Method)
	case r.Method == "CONNECT" && r.Protocol == "":
		if r.Scheme != "" || r.Path != "" {
			return malformed("CONNECT with a scheme or a path")
		}
		return nil
	}
	switch r.Scheme {
	case "https", "http", protocol.Scheme:
	default:
		return malformed("scheme %.64q", r.Scheme)
	}
	if !protocol.IsPath(r.Path) && (r.Path != "*" || r.Method != "OPTIONS") {
		return malformed("path of %d bytes", len(r.Path)) // never the path: its query may hold a credential
	}
	return nil
}

// isAuthority looks for the bytes that no authority has; what it names is the broker's to parse.
func isAuthority(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c <= ' ' || c >= 0x7f:
			return false
		case c == '/' || c == '\\' || c == '?' || c == '#' || c == '@' || c == '%' || c == ',':
			return false
		}
	}
	return s != ""
}

// checkStatus refuses 101 too: protocols are switched by extended CONNECT, as in RFC 9113 §8.6.
func checkStatus(status uint64) error {
	if status < 100 || status > 599 || status == 101 {
		return malformed("status %d", status)
	}
	return nil
}

// checkField judges one line of a header or trailer section.
func checkField(name, value string) error {
	if protocol.IsConnectionField(name) {
		return malformed("connection-specific field %q", name)
	}
	return checkLine(name, value)
}

// checkLine judges a field line by RFC 9292 §3.6 alone, which leaves connection-specific fields to
// whoever converts the message.
func checkLine(name, value string) error {
	switch {
	case len(name) > protocol.MaxFieldName:
		return tooLarge("field name", protocol.MaxFieldName)
	case len(value) > protocol.MaxFieldValue:
		return tooLarge("field value", protocol.MaxFieldValue)
	case !isLowerToken(name):
		return malformed("field name %q", name)
	case !protocol.IsFieldValue(value):
		return malformed("value of field %q", name) // never the value: it may be a credential
	}
	return nil
}

func isLowerToken(s string) bool {
	for i := range len(s) {
		if !lowerTokenChar[s[i]] {
			return false
		}
	}
	return s != ""
}

var lowerTokenChar = func() (t [256]bool) {
	for c := range t {
		t[c] = protocol.IsToken(string([]byte{byte(c)})) && (c < 'A' || c > 'Z')
	}
	return t
}()
