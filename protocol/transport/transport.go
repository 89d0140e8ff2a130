// Package transport opens the byte streams between guest and host: AF_VSOCK, the Unix sockets by which
// Firecracker and Cloud Hypervisor stand in for it (hybrid), and plain Unix sockets for namespaces.
// Above it all three are the same.
package transport

import (
	"context"
	"fmt"
	"net"
	"path"
	"strconv"
	"strings"
)

// The networks.
const (
	VSOCK  = "vsock"
	Hybrid = "hybrid"
	Unix   = "unix"
)

// maxPath is the longest path of a Unix socket in bytes: sun_path without its final NUL (unix(7)).
const maxPath = 107

// maxPortDigits is the length of the suffix that hybrid sockets add: "_4294967294".
const maxPortDigits = 11

// reservedPort is the first port that needs no privilege. A guest opens streams from ports below it,
// so that who has no privilege in the VM is told apart from the guest. It is a filter, not a secret.
const reservedPort = 1024

// CIDs that mean something (vsock(7)).
const (
	CIDHost     = 2         // the host, as seen from a VM
	MinGuestCID = 3         // the first CID that a VM may have
	MaxGuestCID = 1<<32 - 2 // the last one; the next stands for any
)

// An Addr is where a peer listens. The zero value is nowhere.
type Addr struct {
	Network string // VSOCK, Hybrid or Unix
	CID     uint32 // VSOCK: whose port it is
	Port    uint32 // VSOCK; Hybrid, to Dial: the port inside the VM, which ParseAddr leaves 0
	Path    string // Hybrid, Unix: absolute
}

// ParseAddr reads vsock://CID:PORT, hybrid:///PATH or unix:///PATH. Numbers are decimal without sign or
// leading zeros; the CID is that of the host or of a VM, so never the local one, where anybody in the
// VM could listen. A path is absolute, clean and taken byte for byte.
func ParseAddr(s string) (Addr, error) {
	network, rest, ok := strings.Cut(s, "://")
	if !ok {
		return Addr{}, fmt.Errorf("address %q: want vsock://CID:PORT, hybrid:///PATH or unix:///PATH", s)
	}
	switch network {
	case VSOCK:
		return parseVSOCK(s, rest)
	case Hybrid, Unix:
		return parsePath(s, network, rest)
	}
	return Addr{}, fmt.Errorf("address %q: unknown transport %q", s, network)
}

func parseVSOCK(s, rest string) (Addr, error) {
	c, p, ok := strings.Cut(rest, ":")
	cid, okCID := parseNumber(c)
	port, okPort := parseNumber(p)
	switch {
	case !ok || !okCID || !okPort:
		return Addr{}, fmt.Errorf("address %q: want vsock://CID:PORT in decimal", s)
	case cid < CIDHost:
		return Addr{}, fmt.Errorf("address %q: CID %d is neither the host's nor a VM's", s, cid)
	case port == 0:
		return Addr{}, fmt.Errorf("address %q: port 0", s)
	}
	return Addr{Network: VSOCK, CID: cid, Port: port}, nil
}

// parseNumber reads a canonical decimal below 2³²-1, which stands for any.
func parseNumber(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || strconv.FormatUint(n, 10) != s || n == 1<<32-1 {
		return 0, false
	}
	return uint32(n), true
}

func parsePath(s, network, p string) (Addr, error) {
	longest := maxPath
	if network == Hybrid {
		longest -= maxPortDigits
	}
	switch {
	case !path.IsAbs(p) || path.Clean(p) != p || p == "/":
		return Addr{}, fmt.Errorf("address %q: want an absolute path without dots or double slashes", s)
	case len(p) > longest:
		return Addr{}, fmt.Errorf("address %q: path of %d bytes, at most %d fit a socket", s, len(p), longest)
	case strings.ContainsFunc(p, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return Addr{}, fmt.Errorf("address %q: control byte in the path", s)
	}
	return Addr{Network: network, Path: p}, nil
}

// String returns the address as ParseAddr reads it.
func (a Addr) String() string {
	if a.Network == VSOCK {
		return fmt.Sprintf("%s://%d:%d", a.Network, a.CID, a.Port)
	}
	return a.Network + "://" + a.Path
}

// Dial connects to a. The connection has CloseWrite for half-close. Over VSOCK its source port is below
// 1024, which takes CAP_NET_BIND_SERVICE. Over Hybrid it is the host that dials port a.Port in the VM;
// a guest on the other side of such a socket uses VSOCK.
func Dial(ctx context.Context, a Addr) (net.Conn, error) {
	switch a.Network {
	case VSOCK:
		return dialVSOCK(ctx, a)
	case Hybrid:
		return dialHybrid(ctx, a)
	case Unix:
		var d net.Dialer
		return d.DialContext(ctx, "unix", a.Path)
	}
	return nil, fmt.Errorf("dialling %q: unknown transport", a)
}

// Listen listens on port as seen from the other side of a: over VSOCK on that port of a.CID, which is
// our own, over Hybrid at the socket a.Path_PORT, to which the VMM brings the VM's connections to that
// port, over Unix at a.Path, where the port means nothing.
//
// Sockets are made with mode 0600. A stale one is replaced; one that somebody listens on, or that is no
// socket at all, is an error: ErrInUse, for one that is listened on. Over VSOCK, connections from other
// than VMs and from ports that need no privilege are closed unseen.
func Listen(a Addr, port uint32) (net.Listener, error) {
	switch a.Network {
	case VSOCK:
		return listenVSOCK(a.CID, port)
	case Hybrid:
		return listenUnix(a.Path + "_" + strconv.FormatUint(uint64(port), 10))
	case Unix:
		return listenUnix(a.Path)
	}
	return nil, fmt.Errorf("listening on %q: unknown transport", a)
}
