package policy

import (
	"fmt"
	"strings"

	"torno.internal/protocol"
)

// An Origin is a scheme and an authority (RFC 6454 §4): one place that a secret may be sent to.
type Origin struct {
	Scheme    string // "https"
	Authority protocol.Authority
}

// ParseOrigin reads https://host[:port], or host[:port] for the same. No other scheme is an origin that
// a secret may be sent to.
func ParseOrigin(s string) (Origin, error) {
	host, written := strings.CutPrefix(s, "https://")
	if !written && strings.Contains(s, "://") {
		return Origin{}, fmt.Errorf("origin %q: a secret goes over https alone", s)
	}
	a, err := protocol.ParseAuthority(host, protocol.DefaultPort("https"))
	if err != nil {
		return Origin{}, fmt.Errorf("origin %q: %w", s, err)
	}
	return Origin{"https", a}, nil
}

// String returns https://host, with the port where it is not the default.
func (o Origin) String() string {
	host := o.Authority.String()
	if o.Authority.Port == protocol.DefaultPort(o.Scheme) {
		host = host[:strings.LastIndexByte(host, ':')]
	}
	return o.Scheme + "://" + host
}
