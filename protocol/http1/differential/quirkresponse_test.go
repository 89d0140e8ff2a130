package differential

import (
	"regexp"
	"strings"
)

// A responseQuirk is a quirk of a client.
type responseQuirk struct {
	client, name, why string
	excuses           func(d responseDisagreement) bool
}

var responseQuirks = []responseQuirk{
	{"net/http", "long trailer section", "net/http takes no trailer section that does not fit its buffer of 4 KiB", func(d responseDisagreement) bool {
		return d.part == "refused" && (&message{trailer: d.about.want.trailer}).trailerSize() > 2<<10
	}},
	{"curl", "long trailer section", "curl takes trailer sections of 4 KiB at most", func(d responseDisagreement) bool {
		return d.part == "refused" && (&message{trailer: d.about.want.trailer}).trailerSize() > 4000
	}},
	{"python", "white space after a value", "http.client does not remove trailing OWS (RFC 9112 §5.1 does)", func(d responseDisagreement) bool {
		return strings.HasPrefix(d.part, "field ") && trimLines(d.theirs) == d.ours
	}},
	{"python", "white space after chunked", "for the same reason: it reads chunks as content", func(d responseDisagreement) bool {
		return d.part == "content" && codingSpace.MatchString(d.about.wire)
	}},
	{"node", "tab after chunked", "llhttp knows the coding only if it ends its line or a space follows; OWS is a tab, too", func(d responseDisagreement) bool {
		return d.part == "content" && codingTab.MatchString(d.about.wire)
	}},
	{"python", "interim response", "http.client takes 102, 103 and others for the final response; RFC 9110 §15.2 does not", func(d responseDisagreement) bool {
		return interimOther.MatchString(d.about.wire)
	}},
	{"python", "chunked 204 or 304", "http.client reads content that RFC 9112 §6.3 says is none; after it we close", func(d responseDisagreement) bool {
		status := d.about.want.head.Status
		return d.part == "content" && (status == 204 || status == 304) && d.about.want.head.Fields.Count("transfer-encoding") > 0
	}},
}

var (
	codingSpace  = regexp.MustCompile(`(?i)\r\ntransfer-encoding:[ \t]*chunked[ \t]+\r\n`)
	codingTab    = regexp.MustCompile(`(?i)\r\ntransfer-encoding:.*\t.*\r\n`)
	interimOther = regexp.MustCompile(`^(HTTP/1\.[01] 100\b[^\n]*\r\n([^\r\n]+\r\n)*\r\n)*HTTP/1\.[01] 1(0[1-9]|[1-9][0-9])`)
)
