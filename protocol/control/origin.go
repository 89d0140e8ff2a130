package control

import (
	"errors"
	"fmt"
	"strings"

	"torno.internal/protocol"
)

const originScheme = "https"

// originPorts are the schemes of origins that a secret may be bound to, each with its default port.
var originPorts = map[string]uint16{originScheme: protocol.DefaultPort(originScheme), SchemeSSH: 22, SchemePostgres: 5432}

// ParseAudience reads one element of Meta.Audience: an origin as ParseOrigin takes it, or one of another scheme than
// https: ssh://host[:port] or postgres://host[:port].
func ParseAudience(s string) (scheme string, a protocol.Authority, err error) {
	for _, scheme := range []string{SchemeSSH, SchemePostgres} {
		if host, ok := strings.CutPrefix(s, scheme+"://"); ok {
			a, err := parseOriginHost(s, host, originPorts[scheme])
			return scheme, a, err
		}
	}
	a, err = ParseOrigin(s)
	return originScheme, a, err
}

// FormatAudience returns an origin as Meta.Audience spells it: the port stands where it is not the scheme's default.
func FormatAudience(scheme string, a protocol.Authority) string {
	host := a.String()
	if a.Port == originPorts[scheme] {
		host = host[:strings.LastIndexByte(host, ':')]
	}
	return scheme + "://" + host
}

// ParseOrigin reads one origin that a secret may be sent to, https://host[:port], or host[:port] for the
// same. The scheme is https always, and the host one host: a wildcard would send the key to hosts that
// nobody has seen.
func ParseOrigin(s string) (protocol.Authority, error) {
	host, written := strings.CutPrefix(s, originScheme+"://")
	if !written && strings.Contains(s, "://") {
		return protocol.Authority{}, fmt.Errorf("origin %q: a secret goes over https alone", s)
	}
	return parseOriginHost(s, host, protocol.DefaultPort(originScheme))
}

// parseOriginHost reads the host and the port of the origin s.
func parseOriginHost(s, host string, port uint16) (protocol.Authority, error) {
	switch {
	case strings.Contains(host, "*"):
		return protocol.Authority{}, fmt.Errorf("origin %q: a secret is bound to exact hosts, not to a wildcard; name each host", s)
	case strings.ContainsAny(host, "/?#"):
		return protocol.Authority{}, fmt.Errorf("origin %q: only a host and a port, no path", s)
	}
	a, err := protocol.ParseAuthority(host, port)
	if err != nil {
		return protocol.Authority{}, fmt.Errorf("origin %q: %w", s, err)
	}
	return a, nil
}

// FormatOrigin returns a as Meta.Audience spells it: https://host, with the port where it is not 443.
func FormatOrigin(a protocol.Authority) string { return FormatAudience(originScheme, a) }

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
