package protocol

import (
	"strings"
	"testing"
)

var (
	label63           = strings.Repeat("a", 63)
	name253           = strings.Join([]string{label63, label63, label63, strings.Repeat("b", 61)}, ".")
	name254           = name253 + "b"
	name255           = name253 + "bb"
	authorityAccepted = []struct{ in, want string }{
		{"example.com", "example.com:443"},
		{"EXAMPLE.Com", "example.com:443"},
		{"example.com.", "example.com:443"},
		{"example.com.:8443", "example.com:8443"},
		{"example.com:443", "example.com:443"},
		{"example.com:1", "example.com:1"},
		{"example.com:65535", "example.com:65535"},
		{"localhost", "localhost:443"},
		{"a_b._tcp.example.com", "a_b._tcp.example.com:443"},
		{"XN--BCHER-KVA.example", "xn--bcher-kva.example:443"},
		{"1password.com", "1password.com:443"},
		{"1.2.3.4.example", "1.2.3.4.example:443"},
		{"r3---sn-abc.example", "r3---sn-abc.example:443"},
		{"0x7f.1.example", "0x7f.1.example:443"},
		{"example.0xyz", "example.0xyz:443"},
		{"192.0.2.1", "192.0.2.1:443"},
		{"192.0.2.1:80", "192.0.2.1:80"},
		{"[2001:DB8::1]", "[2001:db8::1]:443"},
		{"[2001:db8:0:0:0:0:0:1]:8443", "[2001:db8::1]:8443"},
		{"[::ffff:192.0.2.1]", "192.0.2.1:443"},
		{"[::ffff:c000:201]:80", "192.0.2.1:80"},
		{name253, name253 + ":443"},
		{name253 + ".:65535", name253 + ":65535"},
	}
	authorityRefused = []struct{ name, in string }{
		{"empty", ""},
		{"dot alone", "."},
		{"two trailing dots", "example.com.."},
		{"leading dot", ".example.com"},
		{"empty label", "example..com"},
		{"label of 64 bytes", label63 + "a.example"},
		{"name of 254 bytes", name254},
		{"name of 255 bytes", name255},
		{"far too long", strings.Repeat("a.", 4096)},
		{"leading hyphen", "-example.com"},
		{"trailing hyphen", "example-.com"},
		{"IDN as UTF-8", "bücher.example"},
		{"IDN full-width dot", "example\u3002com"},
		{"Kelvin sign folds to k", "\u212aube.example"},
		{"Latin-1 byte", "b\xfccher.example"},
		{"percent", "example%2ecom"},
		{"percent NUL", "example.com%00.evil.example"},
		{"NUL", "example.com\x00.evil.example"},
		{"CR LF", "example.com\r\nx: y"},
		{"tab", "example\t.com"},
		{"DEL", "example\x7f.com"},
		{"leading space", " example.com"},
		{"trailing space", "example.com "},
		{"user information", "user@example.com"},
		{"user and password", "user:pw@example.com"},
		{"path", "example.com/"},
		{"query", "example.com?x"},
		{"fragment", "example.com#x"},
		{"backslash", "example.com\\evil.example"},
		{"comma", "example.com,evil.example"},
		{"asterisk", "*.example.com"},
		{"port empty", "example.com:"},
		{"port 0", "example.com:0"},
		{"port 65536", "example.com:65536"},
		{"port with sign", "example.com:+443"},
		{"port negative", "example.com:-443"},
		{"port with leading zero", "example.com:0443"},
		{"port with underscore", "example.com:4_43"},
		{"port in hexadecimal", "example.com:0x1bb"},
		{"port with space", "example.com: 443"},
		{"port twice", "example.com:443:443"},
		{"port alone", ":443"},
		{"decimal address", "2130706433"},
		{"hexadecimal address", "0x7f000001"},
		{"hexadecimal, empty", "0x"},
		{"hexadecimal, short", "0x7f.1"},
		{"upper-case 0X", "0X7F.0X1"},
		{"octal", "0177.0.0.1"},
		{"octal-looking octet", "192.0.2.010"},
		{"two parts", "127.1"},
		{"three parts", "127.0.1"},
		{"five parts", "1.2.3.4.5"},
		{"octet too large", "192.0.2.256"},
		{"address with trailing dot", "192.0.2.1."},
		{"name that ends in digits", "example.123"},
		{"name that ends in 0x", "example.0x1f"},
		{"name that ends in 0x and dot", "example.0x."},
		{"IPv6 without brackets", "2001:db8::1"},
		{"IPv6 bracket open", "[2001:db8::1"},
		{"IPv6 bracket closed", "2001:db8::1]"},
		{"IPv6 with zone", "[fe80::1%eth0]"},
		{"IPv6 with encoded zone", "[fe80::1%25eth0]"},
		{"IPv6 and junk", "[2001:db8::1]x"},
		{"IPv6 and port without colon", "[2001:db8::1]443"},
		{"IPv6 empty port", "[2001:db8::1]:"},
		{"IPv4 in brackets", "[192.0.2.1]"},
		{"name in brackets", "[example.com]"},
		{"IPvFuture", "[v1.x]"},
		{"empty brackets", "[]"},
		{"brackets twice", "[[::1]]"},
		{"IPv6 with dotted octal", "[::ffff:192.0.2.010]"},
	}
)

func TestParseAuthority(t *testing.T) {
	for _, tt := range authorityAccepted {
		got, err := ParseAuthority(tt.in, 443)
		if err != nil || got.String() != tt.want {
			t.Errorf("ParseAuthority(%q) = %v, %v; want %s", tt.in, got, err, tt.want)
		}
	}
}

func TestAttack13AuthoritySpellings(t *testing.T) {
	for _, tt := range authorityRefused {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseAuthority(tt.in, 443)
			if err == nil {
				t.Fatalf("ParseAuthority(%q) = %v, want an error", tt.in, got)
			}
			if got != (Authority{}) {
				t.Errorf("ParseAuthority(%q) = %v beside an error, want the zero value", tt.in, got)
			}
			for _, r := range err.Error() {
				if r < 0x20 || r == 0x7f {
					t.Errorf("error %q holds a control character", err)
				}
			}
		})
	}
}

func TestParseAuthorityWantsPort(t *testing.T) {
	for _, in := range []string{"example.com", "[::1]", "192.0.2.1"} {
		if got, err := ParseAuthority(in, 0); err == nil {
			t.Errorf("ParseAuthority(%q, 0) = %v, want an error", in, got)
		}
	}
	got, err := ParseAuthority("example.com:22", 0)
	if want := (Authority{"example.com", 22}); err != nil || got != want {
		t.Errorf("ParseAuthority = %v, %v; want %v", got, err, want)
	}
}

func TestParseHost(t *testing.T) {
	accepted := []struct{ in, want string }{
		{"Example.COM.", "example.com"},
		{"_srv.example.com", "_srv.example.com"},
		{"192.0.2.1", "192.0.2.1"},
		{"2001:DB8:0::1", "2001:db8::1"},
		{"::ffff:192.0.2.1", "192.0.2.1"},
		{name253 + ".", name253},
	}
	for _, tt := range accepted {
		if got, err := ParseHost(tt.in); err != nil || got != tt.want {
			t.Errorf("ParseHost(%q) = %q, %v; want %q", tt.in, got, err, tt.want)
		}
	}
	for _, in := range []string{
		"", ".", "[::1]", "example.com:443", "fe80::1%eth0", "127.1", "a..b", "*.example.com", name254, strings.Repeat(":", 999),
	} {
		if got, err := ParseHost(in); err == nil || got != "" {
			t.Errorf("ParseHost(%q) = %q, %v; want an error", in, got, err)
		}
	}
}

func TestAuthorityIP(t *testing.T) {
	tests := []struct {
		in   string
		want bool
	}{
		{"192.0.2.1", true}, {"[2001:db8::1]", true}, {"example.com", false}, {"1.2.3.4.example", false},
	}
	for _, tt := range tests {
		a, err := ParseAuthority(tt.in, 443)
		if err != nil {
			t.Fatal(err)
		}
		if ip, ok := a.IP(); ok != tt.want || ok && ip.String() != a.Host {
			t.Errorf("%v.IP() = %v, %v; want %v", a, ip, ok, tt.want)
		}
	}
	if _, ok := (Authority{}).IP(); ok {
		t.Error("the zero Authority is an address")
	}
}

func TestDefaultPort(t *testing.T) {
	for scheme, want := range map[string]uint16{"https": 443, "http": 80, "torno": 0, "HTTPS": 0, "": 0} {
		if got := DefaultPort(scheme); got != want {
			t.Errorf("DefaultPort(%q) = %d, want %d", scheme, got, want)
		}
	}
}

func FuzzParseAuthority(f *testing.F) {
	for _, tt := range authorityAccepted {
		f.Add(tt.in)
	}
	for _, tt := range authorityRefused {
		f.Add(tt.in)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAuthority(s, 443)
		if err != nil {
			return
		}
		text := a.String()
		if len(text) > MaxAuthority {
			t.Fatalf("%q prints as %d bytes", s, len(text))
		}
		if b, err := ParseAuthority(text, 0); err != nil || a != b {
			t.Fatalf("%q parses to %v, which parses to %v, %v", s, a, b, err)
		}
		if host, err := ParseHost(a.Host); err != nil || host != a.Host {
			t.Fatalf("ParseHost(%q) = %q, %v", a.Host, host, err)
		}
		for i := range len(text) {
			if c := text[i]; c >= 0x80 || 'A' <= c && c <= 'Z' || c <= ' ' || strings.IndexByte("%@/\\*?#", c) >= 0 {
				t.Fatalf("%q prints as %q", s, text)
			}
		}
	})
}
