package upstream

import (
	"fmt"
	"net/netip"
	"slices"
)

// A guard judges addresses. The zero value allows global unicast addresses alone.
type guard struct {
	allow []netip.Prefix // the operator's exemptions
	nat64 []netip.Prefix // the operator's own prefixes for translated addresses (RFC 6052 §2.2)
}

// with returns g with more exemptions.
func (g guard) with(allow []netip.Prefix) guard {
	if len(allow) > 0 {
		g.allow = slices.Concat(g.allow, allow)
	}
	return g
}

// A specialRange is a range of addresses that no name of the public internet leads to.
type specialRange struct {
	prefix netip.Prefix
	use    string
}

// specialRanges holds IANA's special-purpose registries (RFC 6890 and its updates), globally
// reachable anycast entries included, multicast, what lies outside IPv6 global unicast (2000::/3),
// and public addresses behind which clouds keep their metadata. The first match names the reason.
var specialRanges = []specialRange{
	{netip.MustParsePrefix("0.0.0.0/8"), "this network"},
	{netip.MustParsePrefix("10.0.0.0/8"), "private use"},
	{netip.MustParsePrefix("100.64.0.0/10"), "shared address space"},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
	{netip.MustParsePrefix("168.63.129.16/32"), "Azure host metadata"},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local"},
	{netip.MustParsePrefix("172.16.0.0/12"), "private use"},
	{netip.MustParsePrefix("192.0.0.0/24"), "IETF protocol assignments"},
	{netip.MustParsePrefix("192.0.2.0/24"), "documentation"},
	{netip.MustParsePrefix("192.31.196.0/24"), "AS112"},
	{netip.MustParsePrefix("192.52.193.0/24"), "AMT"},
	{netip.MustParsePrefix("192.88.99.0/24"), "6to4 relay anycast"},
	{netip.MustParsePrefix("192.168.0.0/16"), "private use"},
	{netip.MustParsePrefix("192.175.48.0/24"), "AS112"},
	{netip.MustParsePrefix("198.18.0.0/15"), "benchmarking"},
	{netip.MustParsePrefix("198.51.100.0/24"), "documentation"},
	{netip.MustParsePrefix("203.0.113.0/24"), "documentation"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},
	{netip.MustParsePrefix("255.255.255.255/32"), "broadcast"},
	{netip.MustParsePrefix("240.0.0.0/4"), "reserved"},

	{netip.MustParsePrefix("::/128"), "unspecified"},
	{netip.MustParsePrefix("::1/128"), "loopback"},
	{netip.MustParsePrefix("::/96"), "IPv4-compatible"},
	{netip.MustParsePrefix("::ffff:0:0:0/96"), "IPv4-translated"},
	{netip.MustParsePrefix("100::/64"), "discard only"},
	{netip.MustParsePrefix("100:0:0:1::/64"), "dummy prefix"},
	{netip.MustParsePrefix("2001::/32"), "Teredo"},
	{netip.MustParsePrefix("2001:2::/48"), "benchmarking"},
	{netip.MustParsePrefix("2001:10::/28"), "ORCHID"},
	{netip.MustParsePrefix("2001:20::/28"), "ORCHIDv2"},
	{netip.MustParsePrefix("2001:30::/28"), "drone remote ID"},
	{netip.MustParsePrefix("2001::/23"), "IETF protocol assignments"},
	{netip.MustParsePrefix("2001:db8::/32"), "documentation"},
	{netip.MustParsePrefix("2620:4f:8000::/48"), "AS112"},
	{netip.MustParsePrefix("3fff::/20"), "documentation"},
	{netip.MustParsePrefix("5f00::/16"), "segment routing SIDs"},
	{netip.MustParsePrefix("fc00::/7"), "unique local"},
	{netip.MustParsePrefix("fe80::/10"), "link-local"},
	{netip.MustParsePrefix("fec0::/10"), "site-local"},
	{netip.MustParsePrefix("ff00::/8"), "multicast"},
	{netip.MustParsePrefix("::/3"), "outside global unicast"},
	{netip.MustParsePrefix("4000::/2"), "outside global unicast"},
	{netip.MustParsePrefix("8000::/1"), "outside global unicast"},
}

// An embedding is a range of IPv6 addresses that lead to the IPv4 address inside them, so that is
// what is judged.
type embedding struct {
	prefix netip.Prefix
	use    string
	at     [][4]int // places to read the IPv4 address from: octet positions
}

// embeddings holds the translated forms. The local-use prefix of RFC 8215 may be subdivided at any
// length of RFC 6052 §2.2 and nobody says which, so all readings are judged.
var embeddings = []embedding{
	{netip.MustParsePrefix("64:ff9b::/96"), "NAT64", [][4]int{{12, 13, 14, 15}}},
	{netip.MustParsePrefix("64:ff9b:1::/48"), "local-use NAT64",
		[][4]int{{6, 7, 9, 10}, {7, 9, 10, 11}, {9, 10, 11, 12}, {12, 13, 14, 15}}},
	{netip.MustParsePrefix("2002::/16"), "6to4", [][4]int{{2, 3, 4, 5}}},
}

// nat64Positions says where an address holds the IPv4 address, by the length of the prefix (RFC 6052 §2.2).
var nat64Positions = map[int][4]int{
	32: {4, 5, 6, 7}, 40: {5, 6, 7, 9}, 48: {6, 7, 9, 10}, 56: {7, 9, 10, 11}, 64: {9, 10, 11, 12}, 96: {12, 13, 14, 15},
}

// thisNetwork reads as "no address here" at places where an embedding may or may not hold one.
var thisNetwork = netip.MustParsePrefix("0.0.0.0/8")

// An addressError says which address was refused and why.
type addressError struct {
	addr netip.Addr
	use  string
}

func (e *addressError) Error() string { return fmt.Sprintf("address %v is %s", e.addr, e.use) }

// check returns an *addressError unless a connection to addr may leave this host. IPv4-mapped
// addresses are judged as the IPv4 address, translated ones by the IPv4 address that they lead to.
func (g guard) check(addr netip.Addr) error {
	addr = addr.Unmap()
	switch {
	case !addr.IsValid():
		return &addressError{addr, "not an address"}
	case addr.Zone() != "":
		return &addressError{addr, "bound to one link"}
	case g.exempt(addr):
		return nil
	}
	for _, p := range g.nat64 {
		if p.Contains(addr) {
			return g.checkEmbedded(addr, embedding{use: "NAT64", at: [][4]int{nat64Positions[p.Bits()]}})
		}
	}
	for _, e := range embeddings {
		if e.prefix.Contains(addr) {
			return g.checkEmbedded(addr, e)
		}
	}
	for _, r := range specialRanges {
		if r.prefix.Contains(addr) {
			return &addressError{addr, r.use}
		}
	}
	if b := addr.As16(); addr.Is6() && b[8]&^2 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe {
		return g.checkEmbedded(addr, embedding{use: "ISATAP", at: [][4]int{{12, 13, 14, 15}}})
	}
	return nil
}

func (g guard) exempt(addr netip.Addr) bool {
	for _, p := range g.allow {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// checkEmbedded judges every IPv4 address that addr may lead to; there must be one.
func (g guard) checkEmbedded(addr netip.Addr, e embedding) error {
	b, found := addr.As16(), false
	for _, at := range e.at {
		v4 := netip.AddrFrom4([4]byte{b[at[0]], b[at[1]], b[at[2]], b[at[3]]})
		if len(e.at) > 1 && thisNetwork.Contains(v4) {
			continue
		}
		if err := g.check(v4); err != nil {
			return &addressError{addr, fmt.Sprintf("%s for %v", e.use, err)}
		}
		found = true
	}
	if !found {
		return &addressError{addr, e.use + " for no address"}
	}
	return nil
}
