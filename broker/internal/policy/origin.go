package policy

import (
	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// An Origin is a scheme and an authority (RFC 6454 §4): one place that a secret may be sent to.
type Origin struct {
	Scheme    string // "https", "ssh" or "postgres"
	Authority protocol.Authority
}

// ParseOrigin reads https://host[:port], or host[:port] for the same, and the origins of what is not HTTP:
// ssh://host[:port] and postgres://host[:port].
func ParseOrigin(s string) (Origin, error) {
	scheme, a, err := control.ParseAudience(s)
	if err != nil {
		return Origin{}, err
	}
	return Origin{scheme, a}, nil
}

// String returns SCHEME://host, with the port where it is not the default.
func (o Origin) String() string { return control.FormatAudience(o.Scheme, o.Authority) }

// tunnels reports whether what goes to the origin goes through a tunnel.
func (o Origin) tunnels() bool {
	return o.Scheme == control.SchemeSSH || o.Scheme == control.SchemePostgres
}
