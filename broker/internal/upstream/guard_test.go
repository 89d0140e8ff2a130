package upstream

import (
	"errors"
	"net/netip"
	"testing"
)

func TestGuard(t *testing.T) {
	for _, tt := range []struct {
		addr string
		want string // "" means allowed
	}{
		{"1.1.1.1", ""},
		{"8.8.8.8", ""},
		{"100.63.255.255", ""},
		{"100.128.0.0", ""},
		{"172.15.255.255", ""},
		{"172.32.0.0", ""},
		{"192.0.1.0", ""},
		{"198.17.255.255", ""},
		{"198.20.0.0", ""},
		{"223.255.255.255", ""},
		{"2606:4700::1111", ""},
		{"2001:4860:4860::8888", ""},
		{"2001:200::1", ""},
		{"3ffe::1", ""},

		{"0.0.0.0", "this network"},
		{"0.1.2.3", "this network"},
		{"10.0.0.0", "private use"},
		{"10.255.255.255", "private use"},
		{"100.64.0.0", "shared address space"},
		{"100.100.100.200", "shared address space"},
		{"100.127.255.255", "shared address space"},
		{"127.0.0.1", "loopback"},
		{"127.255.255.254", "loopback"},
		{"168.63.129.16", "Azure host metadata"},
		{"169.254.169.254", "link-local"},
		{"169.254.170.2", "link-local"},
		{"172.16.0.0", "private use"},
		{"172.31.255.255", "private use"},
		{"192.0.0.1", "IETF protocol assignments"},
		{"192.0.0.192", "IETF protocol assignments"},
		{"192.0.2.2", "documentation"},
		{"192.31.196.1", "AS112"},
		{"192.52.193.1", "AMT"},
		{"192.88.99.1", "6to4 relay anycast"},
		{"192.168.1.1", "private use"},
		{"192.175.48.1", "AS112"},
		{"198.18.0.1", "benchmarking"},
		{"198.19.255.255", "benchmarking"},
		{"198.51.100.1", "documentation"},
		{"203.0.113.1", "documentation"},
		{"224.0.0.1", "multicast"},
		{"239.255.255.250", "multicast"},
		{"240.0.0.1", "reserved"},
		{"255.255.255.254", "reserved"},
		{"255.255.255.255", "broadcast"},

		{"::", "unspecified"},
		{"::1", "loopback"},
		{"::7f00:1", "IPv4-compatible"},
		{"::8.8.8.8", "IPv4-compatible"},
		{"::ffff:0:7f00:1", "IPv4-translated"},
		{"100::1", "discard only"},
		{"100:0:0:1::1", "dummy prefix"},
		{"2001::1", "Teredo"},
		{"2001:0:4136:e378:8000:63bf:3fff:fdd2", "Teredo"},
		{"2001:1::1", "IETF protocol assignments"},
		{"2001:2::1", "benchmarking"},
		{"2001:3::1", "IETF protocol assignments"},
		{"2001:10::1", "ORCHID"},
		{"2001:20::1", "ORCHIDv2"},
		{"2001:30::1", "drone remote ID"},
		{"2001:db8::1", "documentation"},
		{"2620:4f:8000::1", "AS112"},
		{"3fff::1", "documentation"},
		{"5f00::1", "segment routing SIDs"},
		{"fc00::1", "unique local"},
		{"fd00:ec2::254", "unique local"},
		{"fd20:ce::254", "unique local"},
		{"fe80::1", "link-local"},
		{"fe80::1%eth0", "bound to one link"},
		{"2606:4700::1111%eth0", "bound to one link"},
		{"fec0::1", "site-local"},
		{"ff02::1", "multicast"},
		{"200::1", "outside global unicast"},
		{"4000::1", "outside global unicast"},
		{"8000::1", "outside global unicast"},
		{"e000::1", "outside global unicast"},

		{"::ffff:8.8.8.8", ""},
		{"::ffff:127.0.0.1", "loopback"},
		{"::ffff:169.254.169.254", "link-local"},
		{"64:ff9b::8.8.8.8", ""},
		{"64:ff9b::127.0.0.1", "NAT64 for address 127.0.0.1 is loopback"},
		{"64:ff9b::10.0.0.1", "NAT64 for address 10.0.0.1 is private use"},
		{"64:ff9b::0.0.0.0", "NAT64 for address 0.0.0.0 is this network"},
		{"64:ff9b:0:0:1::8.8.8.8", "outside global unicast"},
		{"64:ff9b:1::8.8.8.8", ""},
		{"64:ff9b:1::", "local-use NAT64 for no address"},
		{"64:ff9b:1::169.254.169.254", "local-use NAT64 for address 169.254.169.254 is link-local"},
		{"64:ff9b:1:a00:0:100::", "local-use NAT64 for address 10.0.0.1 is private use"},
		{"64:ff9b:1:a00:0:100:808:808", "local-use NAT64 for address 10.0.0.1 is private use"},
		{"64:ff9b:1:7f:0:1:808:808", "local-use NAT64 for address 127.0.0.1 is loopback"},
		{"64:ff9b:1:0:a:0:100:0", "local-use NAT64 for address 10.0.0.1 is private use"},
		{"2002:808:808::1", ""},
		{"2002:7f00:1::1", "6to4 for address 127.0.0.1 is loopback"},
		{"2002:c0a8:101::1", "6to4 for address 192.168.1.1 is private use"},
		{"2606:4700::5efe:808:808", ""},
		{"2606:4700::5efe:a00:1", "ISATAP for address 10.0.0.1 is private use"},
		{"2606:4700::200:5efe:7f00:1", "ISATAP for address 127.0.0.1 is loopback"},
	} {
		got := ""
		if err := (guard{}).check(netip.MustParseAddr(tt.addr)); err != nil {
			var refused *addressError
			if !errors.As(err, &refused) {
				t.Fatalf("check(%v): %v", tt.addr, err)
			}
			got = refused.use
		}
		if got != tt.want {
			t.Errorf("check(%v) = %q, want %q", tt.addr, got, tt.want)
		}
	}
	if (guard{}).check(netip.Addr{}) == nil {
		t.Error("the zero address is allowed")
	}
}

func TestGuardExemptions(t *testing.T) {
	g := guard{allow: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd00:1::/32")}}
	for addr, want := range map[string]bool{
		"10.1.2.3":           true,
		"::ffff:10.1.2.3":    true,
		"64:ff9b::10.1.2.3":  true,
		"fd00:1::1":          true,
		"10.2.0.1":           false,
		"fd00:2::1":          false,
		"64:ff9b::10.2.0.1":  false,
		"fd00:1::1%lo":       false,
		"169.254.169.254":    false,
		"::ffff:192.168.0.1": false,
	} {
		if got := g.check(netip.MustParseAddr(addr)) == nil; got != want {
			t.Errorf("check(%v) allowed %v, want %v", addr, got, want)
		}
	}
}

// FuzzGuard holds every address that is allowed to what the standard library knows of it, and every
// way to write an IPv4 address to the same verdict.
func FuzzGuard(f *testing.F) {
	for _, s := range []string{"8.8.8.8", "127.0.0.1", "2606:4700::1111", "64:ff9b::7f00:1", "2002:7f00:1::", "::ffff:10.0.0.1"} {
		b := netip.MustParseAddr(s).As16()
		f.Add(b[:])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < 16 {
			return
		}
		addr := netip.AddrFrom16([16]byte(b))
		err := guard{}.check(addr)
		if u := addr.Unmap(); err == nil && (!u.IsGlobalUnicast() || u.IsPrivate() || u.IsLoopback() || u.IsLinkLocalUnicast() ||
			u.IsMulticast() || u.IsUnspecified()) {
			t.Errorf("%v is allowed", addr)
		}
		v4 := netip.AddrFrom4([4]byte(b))
		want := guard{}.check(v4) == nil
		nat64 := netip.MustParseAddr("64:ff9b::").As16()
		copy(nat64[12:], b)
		for _, same := range []netip.Addr{netip.AddrFrom16(v4.As16()), netip.AddrFrom16(nat64)} {
			if got := (guard{}).check(same) == nil; got != want {
				t.Errorf("%v allowed %v, %v allowed %v", v4, want, same, got)
			}
		}
	})
}
