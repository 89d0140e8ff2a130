package protocol

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Limits on a host name (RFC 1035 §2.3.4), in bytes.
const (
	MaxHost  = 253 // without a trailing dot
	MaxLabel = 63
)

// An Authority says whose server is meant: the host and port of a URI (RFC 3986 §3.2) in the one
// spelling that policy, credentials, dialling, TLS and audit all compare. Host is a lower-case name
// without a trailing dot, or an IP address as netip prints it, without brackets or zone, an
// IPv4-mapped one as the IPv4 address that it reaches. Port is never 0 in a parsed Authority; the zero
// value names nothing.
type Authority struct {
	Host string
	Port uint16
}

// ParseAuthority reads host or host:port, IPv6 in brackets. Where s has no port it is defaultPort; if
// that is 0, as for CONNECT, a port is required. It accepts upper case and one trailing dot, because
// clients send both, and refuses whatever two parsers might read differently: user information,
// percent-encoding, non-ASCII, zones, empty and over-long labels, "host:", port 0, leading zeros, and
// every IPv4 spelling but four plain decimal octets.
func ParseAuthority(s string, defaultPort uint16) (Authority, error) {
	if len(s) > MaxAuthority {
		return Authority{}, fmt.Errorf("authority of %d bytes, at most %d fit", len(s), MaxAuthority)
	}
	host, port, err := splitAuthority(s, defaultPort)
	if err != nil {
		return Authority{}, fmt.Errorf("authority %q: %w", s, err)
	}
	if strings.HasPrefix(host, "[") {
		host, err = parseIP6(host[1 : len(host)-1])
	} else {
		host, err = parseNameOrIP4(host)
	}
	if err != nil {
		return Authority{}, fmt.Errorf("authority %q: %w", s, err)
	}
	return Authority{host, port}, nil
}

// ParseHost reads a host alone, as it stands in a TLS server name, a DNS question or Authority.Host,
// and returns its canonical form. It judges as ParseAuthority does, but an IPv6 address has no
// brackets.
func ParseHost(s string) (string, error) {
	if len(s) > MaxAuthority {
		return "", fmt.Errorf("host of %d bytes, at most %d fit", len(s), MaxHost)
	}
	parse := parseNameOrIP4
	if strings.Contains(s, ":") {
		parse = parseIP6
	}
	host, err := parse(s)
	if err != nil {
		return "", fmt.Errorf("host %q: %w", s, err)
	}
	return host, nil
}

// String returns host:port, with IPv6 in brackets; the port is always there.
func (a Authority) String() string {
	host := a.Host
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return host + ":" + strconv.Itoa(int(a.Port))
}

// IP returns the address if the host is one and not a name.
func (a Authority) IP() (netip.Addr, bool) {
	if a.Host == "" || !strings.Contains(a.Host, ":") && !endsInNumber(a.Host) {
		return netip.Addr{}, false
	}
	ip, err := netip.ParseAddr(a.Host)
	return ip, err == nil
}

// DefaultPort returns the port of a scheme's URIs that write none, or 0 for schemes other than https
// and http.
func DefaultPort(scheme string) uint16 {
	switch scheme {
	case "https":
		return 443
	case "http":
		return 80
	}
	return 0
}

// splitAuthority cuts s into a host, still in its brackets, and a port.
func splitAuthority(s string, defaultPort uint16) (host string, port uint16, err error) {
	end := strings.IndexByte(s, ':')
	if strings.HasPrefix(s, "[") {
		if end = strings.IndexByte(s, ']') + 1; end == 0 {
			return "", 0, errors.New("bracket is not closed")
		}
	} else if end < 0 {
		end = len(s)
	}
	host, rest := s[:end], s[end:]
	if rest == "" {
		if defaultPort == 0 {
			return "", 0, errors.New("port is missing")
		}
		return host, defaultPort, nil
	}
	if rest[0] != ':' {
		return "", 0, errors.New("address in brackets is followed by something other than a port")
	}
	if host == "" {
		return "", 0, errors.New("host is empty")
	}
	port, err = parsePort(rest[1:])
	return host, port, err
}

// parsePort reads 1 to 65535 in its only spelling, without leading zeros.
func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || s[0] == '0' {
		return 0, fmt.Errorf("port %q is not a number from 1 to 65535", s)
	}
	return uint16(n), nil
}

func parseIP6(s string) (string, error) {
	ip, err := netip.ParseAddr(s)
	if err != nil || !ip.Is6() {
		return "", errors.New("not an IPv6 address")
	}
	if ip.Zone() != "" {
		return "", errors.New("an address with a zone means something on one machine only")
	}
	return ip.Unmap().String(), nil
}

// parseNameOrIP4 returns the canonical form of a name or of a dotted IPv4 address.
func parseNameOrIP4(s string) (string, error) {
	if endsInNumber(s) {
		ip, err := netip.ParseAddr(s)
		if err != nil {
			return "", errors.New("ends in a number but is not a plain IPv4 address")
		}
		return ip.String(), nil
	}
	name := strings.TrimSuffix(s, ".")
	if name == "" {
		return "", errors.New("host is empty")
	}
	if len(name) > MaxHost {
		return "", fmt.Errorf("name of %d bytes, at most %d fit", len(name), MaxHost)
	}
	for label := range strings.SplitSeq(name, ".") {
		if err := checkLabel(label); err != nil {
			return "", err
		}
	}
	return strings.ToLower(name), nil
}

// checkLabel accepts letters, digits, hyphens inside (RFC 952, RFC 1123 §2.1), and underscores, which
// hosts in use do have.
func checkLabel(label string) error {
	switch {
	case label == "":
		return errors.New("empty label")
	case len(label) > MaxLabel:
		return fmt.Errorf("label of %d bytes, at most %d fit", len(label), MaxLabel)
	case label[0] == '-' || label[len(label)-1] == '-':
		return errors.New("label begins or ends with a hyphen")
	}
	for i := range len(label) {
		c := label[i]
		if !isAlnum(c) && c != '-' && c != '_' {
			return fmt.Errorf("byte %q cannot be in a host name; write an international name as xn--", c)
		}
	}
	return nil
}

// endsInNumber reports whether a browser would read s as an IPv4 address, in whatever spelling: the
// last label, a trailing dot aside, is all digits or 0x and hexadecimal digits (WHATWG URL §3.5, the
// ends-in-a-number checker).
func endsInNumber(s string) bool {
	s = strings.TrimSuffix(s, ".")
	last := s[strings.LastIndexByte(s, '.')+1:]
	if last == "" {
		return false
	}
	if last[0] == '0' && len(last) > 1 && last[1]|0x20 == 'x' {
		return strings.Trim(last[2:], "0123456789abcdefABCDEF") == ""
	}
	return strings.Trim(last, "0123456789") == ""
}

func isAlnum(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z'
}
