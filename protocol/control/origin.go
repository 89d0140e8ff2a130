package control

import (
	"errors"
	"fmt"
	"strings"

	"torno.internal/protocol"
)

const originScheme = "https"

// ParseOrigin reads one origin that a secret may be sent to, https://host[:port], or host[:port] for the
// same. The scheme is https always, and the host one host: a wildcard would send the key to hosts that
// nobody has seen.
func ParseOrigin(s string) (protocol.Authority, error) {
	host, written := strings.CutPrefix(s, originScheme+"://")
	switch {
	case !written && strings.Contains(s, "://"):
		return protocol.Authority{}, fmt.Errorf("origin %q: a secret goes over https alone", s)
	case strings.Contains(host, "*"):
		return protocol.Authority{}, fmt.Errorf("origin %q: a secret is bound to exact hosts, not to a wildcard; name each host", s)
	case strings.ContainsAny(host, "/?#"):
		return protocol.Authority{}, fmt.Errorf("origin %q: only a host and a port, no path", s)
	}
	a, err := protocol.ParseAuthority(host, protocol.DefaultPort(originScheme))
	if err != nil {
		return protocol.Authority{}, fmt.Errorf("origin %q: %w", s, err)
	}
	return a, nil
}

// FormatOrigin returns a as Meta.Audience spells it: https://host, with the port where it is not 443.
func FormatOrigin(a protocol.Authority) string {
	host := a.String()
	if a.Port == protocol.DefaultPort(originScheme) {
		host = host[:strings.LastIndexByte(host, ':')]
	}
	return originScheme + "://" + host
}

// ParseProxy reads a proxy's URL: http, a host and a port, and nothing else.
func ParseProxy(s string) (protocol.Authority, error) {
	rest, ok := strings.CutPrefix(s, "http://")
	switch {
	case !ok:
		return protocol.Authority{}, fmt.Errorf("proxy %q is not http://host:port", s)
	case strings.Contains(rest, "@"):
		return protocol.Authority{}, errors.New("a proxy's URL holds no credential; use proxy_authorization_file")
	}
	a, err := protocol.ParseAuthority(strings.TrimSuffix(rest, "/"), 0)
	if err != nil {
		return protocol.Authority{}, fmt.Errorf("proxy is not http://host:port: %w", err)
	}
	return a, nil
}
