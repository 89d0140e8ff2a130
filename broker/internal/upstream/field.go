package upstream

import (
	"strings"

	"torno.internal/protocol"
)

// endsHere reports whether the field called name, in lower case, is about one connection, so that it
// ends at this hop (RFC 9110 §7.6.1).
func endsHere(name string) bool {
	switch name {
	case "http2-settings", "proxy-authenticate", "proxy-authentication-info", "proxy-authorization", "te":
		return true
	}
	return protocol.IsConnectionField(name)
}

// steers reports whether a response's field, in lower case, could lead the client around the guest or
// pass for the broker's own word.
func steers(name string) bool {
	return name == "alt-svc" || strings.HasPrefix(name, "torno-")
}

// forbiddenInTrailer reports whether a field, in lower case, may not come after the content: it frames
// the message, routes it, proves who sent it, or says how to process what has been processed already
// (RFC 9110 §6.5.1).
func forbiddenInTrailer(name string) bool {
	switch name {
	case "content-length", "content-encoding", "content-range", "content-type", "trailer", // framing
		"location", "max-forwards", "refresh", // routing
		"authorization", "authentication-info", "cookie", "set-cookie", "www-authenticate", "x-api-key", // authentication
		"age", "cache-control", "date", "expect", "expires", "if-match", "if-modified-since", "if-none-match",
		"if-range", "if-unmodified-since", "pragma", "range", "retry-after", "vary", "warning": // control
		return true
	}
	return endsHere(name) || steers(name)
}

// nominated returns the options of f's Connection fields: the names of fields that end at this hop.
// It is nil for the usual "keep-alive" and "close". What describes the content is for everybody who reads that and
// cannot be nominated: without its coding nobody could search it.
func nominated(f protocol.Fields) []string {
	var names []string
	for i := range f {
		if f[i].Name != "connection" {
			continue
		}
		for option := range strings.SplitSeq(f[i].Value, ",") {
			option = strings.ToLower(strings.Trim(option, " \t"))
			if option != "" && option != "keep-alive" && option != "close" && !describesContent(option) {
				names = append(names, option)
			}
		}
	}
	return names
}

// describesContent reports whether a field, in lower case, says what the content is or how it is coded.
func describesContent(name string) bool {
	return strings.HasPrefix(name, "content-") || strings.HasSuffix(name, "-encoding") || name == "im"
}
