package ssh

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"

	"torno.internal/protocol"
)

// Port is where an SSH server listens unless something else is said.
const Port = 22

// KnownHosts says which host keys belong to which hosts. The zero value knows none.
type KnownHosts []knownHost

type knownHost struct {
	authority protocol.Authority
	key       []byte // in wire format
	line      string // as known_hosts has it
}

// ParseKnownHosts reads lines of known_hosts (sshd(8)), parted by commas: a host, the key's type and the key in base64.
// Patterns, hashed names, certificates and revoked keys are not for a pin.
func ParseKnownHosts(text string) (KnownHosts, error) {
	var known KnownHosts
	for line := range strings.SplitSeq(text, ",") {
		h, err := parseKnownHost(strings.TrimSpace(line))
		if err != nil {
			return nil, err
		}
		known = append(known, h)
	}
	return known, nil
}

func parseKnownHost(line string) (knownHost, error) {
	words := strings.Fields(line)
	if len(words) != 3 {
		return knownHost{}, fmt.Errorf("%q is not HOST TYPE KEY, as known_hosts has it", line)
	}
	a, err := parseHost(words[0])
	if err != nil {
		return knownHost{}, err
	}
	blob, err := base64.StdEncoding.DecodeString(words[2])
	if err != nil {
		return knownHost{}, fmt.Errorf("host key of %s: %w", a, err)
	}
	key, err := ssh.ParsePublicKey(blob)
	if err != nil {
		return knownHost{}, fmt.Errorf("host key of %s: %w", a, err)
	}
	if key.Type() != words[1] || !bytes.Equal(key.Marshal(), blob) {
		return knownHost{}, fmt.Errorf("host key of %s is not of type %q", a, words[1])
	}
	if _, ok := key.(*ssh.Certificate); ok {
		return knownHost{}, errors.New("a certificate is no host key that can be pinned")
	}
	return knownHost{a, blob, FormatHost(a) + " " + words[1] + " " + words[2]}, nil
}

// parseHost reads a host as known_hosts spells it: host, or [host]:port.
func parseHost(s string) (protocol.Authority, error) {
	if strings.HasPrefix(s, "[") {
		host, port, err := net.SplitHostPort(s)
		if err != nil {
			return protocol.Authority{}, fmt.Errorf("host %q: %w", s, err)
		}
		return protocol.ParseAuthority(net.JoinHostPort(host, port), Port)
	}
	if strings.Contains(s, ":") { // an IPv6 address, which has no brackets there
		s = "[" + s + "]"
	}
	return protocol.ParseAuthority(s, Port)
}

// FormatHost returns a as known_hosts spells it.
func FormatHost(a protocol.Authority) string {
	host := strings.Trim(a.Host, "[]")
	if a.Port == Port {
		return host
	}
	return "[" + host + "]:" + strconv.Itoa(int(a.Port))
}

// Has reports whether key, in wire format, is a host key of a.
func (k KnownHosts) Has(a protocol.Authority, key []byte) bool {
	for _, h := range k {
		if h.authority == a && bytes.Equal(h.key, key) {
			return true
		}
	}
	return false
}

// Knows reports whether some key of a is known.
func (k KnownHosts) Knows(a protocol.Authority) bool {
	for _, h := range k {
		if h.authority == a {
			return true
		}
	}
	return false
}

// Lines returns what is known as lines of known_hosts.
func (k KnownHosts) Lines() []string {
	lines := make([]string, len(k))
	for i, h := range k {
		lines[i] = h.line
	}
	return lines
}
