package differential

import (
	"net/url"
	"slices"
	"strings"
)

// A quirk is an error of an oracle, or a liberty that it takes, which nothing that we refuse would
// prevent: what it does it does to messages that are canonical.
type quirk struct {
	oracle, name, why string
	excuses           func(d disagreement) bool
}

var quirks = []quirk{
	{"python", "leading slashes", "http.server makes one slash of those that begin a path (bpo-43223), against redirects to //host", func(d disagreement) bool {
		return d.part == "target" && strings.HasPrefix(d.ours, "//") && d.theirs == "/"+strings.TrimLeft(d.ours, "/")
	}},
	{"python", "white space after a value", "the parser of mail that http.client uses does not remove trailing OWS (RFC 9112 §5.1 does)", func(d disagreement) bool {
		return strings.HasPrefix(d.part, "field ") && trimLines(d.theirs) == d.ours || d.part == "host" && canonical(trimLines(d.theirs)) == d.ours
	}},
	{"node", "unknown method", "llhttp refuses methods that are not in its table; RFC 9110 §9.1 leaves the list open", func(d disagreement) bool {
		return d.part == "refused" && !slices.Contains(nodeMethods, d.message.head.Method)
	}},
	{"nginx", "method not in capitals", "nginx refuses methods of other than A-Z, - and _; RFC 9110 §9.1 has any token", func(d disagreement) bool {
		return d.part == "refused" && strings.Trim(d.message.head.Method, "ABCDEFGHIJKLMNOPQRSTUVWXYZ-_") != ""
	}},
	{"nginx", "path that it cannot normalise", "nginx refuses paths above the root, with %00 and with a bad escape: it maps them to files", func(d disagreement) bool {
		return d.part == "refused" && !normalises(d.message.head.Path)
	}},
	{"nginx", "field repeated", "nginx refuses two of some fields; we leave to the receiver what they mean", func(d disagreement) bool {
		return d.part == "refused" && slices.ContainsFunc(nginxSingle, func(name string) bool { return d.message.head.Fields.Count(name) > 1 })
	}},
	{"net/http", "long trailer section", "net/http takes no trailer section that does not fit its buffer of 4 KiB", func(d disagreement) bool {
		return d.part == "refused" && d.message.trailerSize() > 2<<10
	}},
	{"net/http", "path with a bad escape", "net/http parses the path as a URL and refuses what is none; RFC 9112 §3.2 lets a server do so", func(d disagreement) bool {
		_, err := url.ParseRequestURI(d.message.head.Path)
		return d.part == "refused" && err != nil
	}},
}

var nginxSingle = []string{"if-modified-since", "if-unmodified-since", "if-match", "if-none-match", "if-range", "range", "user-agent",
	"referer", "content-type", "content-range", "authorization", "expect", "date", "from"}

var nodeMethods = []string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND", "M-SEARCH", "PURGE", "SOURCE"}

func trimLines(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = strings.Trim(lines[i], " \t")
	}
	return strings.Join(lines, "\n")
}

// normalises reports whether nginx finds a file name in path.
func normalises(path string) bool {
	path, _, _ = strings.Cut(path, "?")
	var plain strings.Builder
	for i := 0; i < len(path); i++ {
		if path[i] != '%' {
			plain.WriteByte(path[i])
			continue
		}
		if i+2 >= len(path) || !isHex(path[i+1]) || !isHex(path[i+2]) || path[i+1:i+3] == "00" {
			return false
		}
		plain.WriteByte(unhex(path[i+1])<<4 | unhex(path[i+2]))
		i += 2
	}
	depth := 0
	for part := range strings.SplitSeq(strings.Trim(plain.String(), "/"), "/") {
		switch part {
		case "..":
			depth--
		case ".":
		default:
			depth++
		}
		if depth < 0 {
			return false
		}
	}
	return true
}

func isHex(c byte) bool { return strings.IndexByte("0123456789abcdefABCDEF", c) >= 0 }

func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c&^0x20 - 'A' + 10
}
