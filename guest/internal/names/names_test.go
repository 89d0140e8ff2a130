package names

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"torno.internal/protocol"
)

var (
	prefix4 = netip.MustParsePrefix("100.64.0.0/10")
	prefix6 = netip.MustParsePrefix("fd74:6f72:6e6f::/48")
)

func newTable(t testing.TB) *Table {
	t.Helper()
	table, err := New(prefix4, prefix6)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func query(t testing.TB, name string, typ dnsmessage.Type, change func(*dnsmessage.Message)) []byte {
	t.Helper()
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 0x1234, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: typ, Class: dnsmessage.ClassINET}},
	}
	if change != nil {
		change(&m)
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func ask(t testing.TB, table *Table, q []byte) dnsmessage.Message {
	t.Helper()
	var m dnsmessage.Message
	if err := m.Unpack(table.Answer(q)); err != nil {
		t.Fatalf("unpacking the answer: %v", err)
	}
	return m
}

// summary gives an answer's code and data in a few words.
func summary(m dnsmessage.Message) string {
	words := []string{strings.TrimPrefix(m.RCode.String(), "RCode")}
	for _, a := range m.Answers {
		switch body := a.Body.(type) {
		case *dnsmessage.AResource:
			words = append(words, netip.AddrFrom4(body.A).String())
		case *dnsmessage.AAAAResource:
			words = append(words, netip.AddrFrom16(body.AAAA).String())
		case *dnsmessage.PTRResource:
			words = append(words, body.PTR.String())
		}
		words = append(words, fmt.Sprint(a.Header.TTL))
	}
	return strings.Join(words, " ")
}

func TestAnswer(t *testing.T) {
	table := newTable(t)
	_, v6, err := table.AddrOf("first.example")
	if err != nil {
		t.Fatal(err)
	}
	const a, aaaa, ptr = dnsmessage.TypeA, dnsmessage.TypeAAAA, dnsmessage.TypePTR
	for _, test := range []struct {
		name string
		typ  dnsmessage.Type
		want string
	}{
		{"first.example.", a, "Success 100.64.0.1 60"},
		{"First.EXAMPLE.", a, "Success 100.64.0.1 60"},
		{"first.example.", aaaa, "Success " + v6.String() + " 60"},
		{"second.example.", a, "Success 100.64.0.2 60"},
		{"torno.invalid.", a, "Success 100.64.0.3 60"},
		{"api.localhost.", a, "Success 127.0.0.1 60"},
		{"localhost.", aaaa, "Success ::1 60"},
		{"first.example.", 65, "Success"}, // HTTPS
		{"_http._tcp.first.example.", dnsmessage.TypeSRV, "Success"},
		{"first.example.", dnsmessage.TypeTXT, "Success"},
		{"first.example.", dnsmessage.TypeMX, "Success"},
		{"first.example.", dnsmessage.TypeALL, "Success"},
		{"never.asked.example.", dnsmessage.TypeTXT, "Success"}, // and gets no address
		{"1.0.64.100.in-addr.arpa.", ptr, "Success first.example. 60"},
		{"2.0.64.100.in-addr.arpa.", ptr, "Success second.example. 60"},
		{"4.0.64.100.in-addr.arpa.", ptr, "NameError"},
		{"1.0.0.127.in-addr.arpa.", ptr, "NameError"},
		{"x.in-addr.arpa.", ptr, "NameError"},
		{"1.0.64.100.in-addr.arpa.", a, "Success"},
		{reverse6(v6), ptr, "Success first.example. 60"},
		{"10.0.0.1.", a, "NameError"},
		{"0x7f.1.", a, "NameError"},
		{"a b.example.", a, "NameError"},
		{"-a.example.", a, "NameError"},
		{".", a, "NameError"},
	} {
		m := ask(t, table, query(t, test.name, test.typ, nil))
		if got := summary(m); got != test.want {
			t.Errorf("%s %v: got %q, want %q", test.name, test.typ, got, test.want)
		}
		if !m.Response || m.ID != 0x1234 || !m.RecursionDesired || !m.RecursionAvailable || m.Questions[0].Name.String() != test.name {
			t.Errorf("%s: header %+v, question %v", test.name, m.Header, m.Questions)
		}
	}
	if len(table.names) != 3 {
		t.Errorf("names with addresses: %q, want three", table.names)
	}
}

func reverse6(a netip.Addr) string {
	var b strings.Builder
	raw := a.As16()
	for i := 15; i >= 0; i-- {
		fmt.Fprintf(&b, "%x.%x.", raw[i]&15, raw[i]>>4)
	}
	return b.String() + "ip6.arpa."
}

func TestAnswerHeaders(t *testing.T) {
	table := newTable(t)
	opt := func(version uint32, count int) func(*dnsmessage.Message) {
		return func(m *dnsmessage.Message) {
			for range count {
				m.Additionals = append(m.Additionals, dnsmessage.Resource{
					Header: dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName("."), Class: 4096, TTL: version << 16},
					Body:   &dnsmessage.OPTResource{Options: []dnsmessage.Option{{Code: 10, Data: []byte("cookie..")}}},
				})
			}
		}
	}
	for name, test := range map[string]struct {
		change func(*dnsmessage.Message)
		want   dnsmessage.RCode
		opt    bool
	}{
		"EDNS":           {opt(0, 1), dnsmessage.RCodeSuccess, true},
		"EDNS version 1": {opt(1, 1), 0, true}, // BADVERS: its low bits are zero
		"two OPT":        {opt(0, 2), dnsmessage.RCodeFormatError, false},
		"no question":    {func(m *dnsmessage.Message) { m.Questions = nil }, dnsmessage.RCodeFormatError, false},
		"two questions":  {func(m *dnsmessage.Message) { m.Questions = append(m.Questions, m.Questions[0]) }, dnsmessage.RCodeFormatError, false},
		"notify":         {func(m *dnsmessage.Message) { m.OpCode = 4 }, dnsmessage.RCodeNotImplemented, false},
		"chaos":          {func(m *dnsmessage.Message) { m.Questions[0].Class = dnsmessage.ClassCHAOS }, dnsmessage.RCodeRefused, false},
	} {
		m := ask(t, table, query(t, "a.example.", dnsmessage.TypeA, test.change))
		if m.RCode != test.want || (len(m.Additionals) == 1) != test.opt {
			t.Errorf("%s: got %v with %d additionals, want %v, OPT %v", name, m.RCode, len(m.Additionals), test.want, test.opt)
		}
	}
	m := ask(t, table, query(t, "b.example.", dnsmessage.TypeA, opt(1, 1)))
	if code := m.Additionals[0].Header.ExtendedRCode(m.RCode); code != rcodeBadVersion || len(m.Answers) != 0 {
		t.Errorf("EDNS version 1: %v with %d answers, want BADVERS with none", code, len(m.Answers))
	}
}

func TestAnswerMalformed(t *testing.T) {
	table := newTable(t)
	good := query(t, "a.example.", dnsmessage.TypeA, nil)
	for n := range good {
		answer := table.Answer(good[:n])
		if n < 12 {
			if answer != nil {
				t.Errorf("%d bytes: answered", n)
			}
			continue
		}
		var m dnsmessage.Message
		if err := m.Unpack(answer); err != nil || m.RCode != dnsmessage.RCodeFormatError || m.ID != 0x1234 {
			t.Errorf("%d bytes: %v, %v, want FORMERR", n, m.RCode, err)
		}
	}
	response := append([]byte(nil), good...)
	response[2] |= 0x80
	if table.Answer(response) != nil {
		t.Error("answered an answer")
	}
	if table.Answer(make([]byte, MaxQuery+1)) != nil {
		t.Error("answered an over-long query")
	}
}

func TestTableNeverRecycles(t *testing.T) {
	table := newTable(t)
	seen := map[netip.Addr]string{}
	for i := range protocol.MaxNames {
		name := fmt.Sprintf("n%d.example", i)
		v4, v6, err := table.AddrOf(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range []netip.Addr{v4, v6} {
			if old, ok := seen[a]; ok {
				t.Fatalf("%v: given to %q and %q", a, old, name)
			}
			seen[a] = name
			if !prefix4.Contains(a) && !prefix6.Contains(a) {
				t.Fatalf("%v is outside the prefixes", a)
			}
		}
	}
	if _, _, err := table.AddrOf("one.more.example"); err != ErrExhausted {
		t.Errorf("one more: %v, want ErrExhausted", err)
	}
	if m := ask(t, table, query(t, "one.more.example.", dnsmessage.TypeA, nil)); m.RCode != dnsmessage.RCodeServerFailure {
		t.Errorf("one more: %v, want SERVFAIL", m.RCode)
	}
	for a, want := range seen {
		if got, ok := table.NameOf(a); got != want || !ok {
			t.Fatalf("NameOf(%v) = %q, %v, want %q", a, got, ok, want)
		}
	}
	if v4, _, err := table.AddrOf("n0.example"); err != nil || v4.String() != "100.64.0.1" {
		t.Errorf("first name again: %v, %v", v4, err)
	}
	for _, a := range []string{"100.64.0.0", "100.65.0.1", "8.8.8.8", "0.0.0.0", "::", "fd74:6f72:6e6f::1"} {
		if name, ok := table.NameOf(netip.MustParseAddr(a)); ok {
			t.Errorf("NameOf(%s) = %q", a, name)
		}
	}
	if name, ok := table.NameOf(netip.Addr{}); ok {
		t.Errorf("NameOf of no address = %q", name)
	}
}

func TestNewRefuses(t *testing.T) {
	for _, bad := range [][2]netip.Prefix{{}, {prefix6, prefix6}, {prefix4, prefix4}, {netip.MustParsePrefix("10.0.0.0/31"), prefix6}, {prefix4, netip.MustParsePrefix("fd00::/65")}} {
		if _, err := New(bad[0], bad[1]); err == nil {
			t.Errorf("New(%v) succeeded", bad)
		}
	}
}

func TestParseReverse(t *testing.T) {
	for _, name := range []string{"", "1.2.3.in-addr.arpa", "1.2.3.4.5.in-addr.arpa", "01.2.3.4.in-addr.arpa", "300.1.1.1.in-addr.arpa",
		"in-addr.arpa", strings.Repeat("1.", 31) + "ip6.arpa", strings.Repeat("g.", 32) + "ip6.arpa", strings.Repeat("+.", 32) + "ip6.arpa"} {
		if a, ok := parseReverse(name); ok {
			t.Errorf("parseReverse(%q) = %v", name, a)
		}
	}
	want := netip.MustParseAddr("1.2.3.4")
	if got, ok := parseReverse("4.3.2.1.in-addr.arpa"); got != want || !ok {
		t.Errorf("got %v, %v, want %v", got, ok, want)
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add(query(f, "a.example.", dnsmessage.TypeA, nil))
	f.Add(query(f, "1.0.64.100.in-addr.arpa.", dnsmessage.TypePTR, nil))
	f.Add(query(f, "a.", dnsmessage.TypeAAAA, func(m *dnsmessage.Message) {
		m.Additionals = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName(".")}, Body: &dnsmessage.OPTResource{}}}
	}))
	f.Add([]byte{0, 1, 2})
	f.Fuzz(func(t *testing.T, q []byte) {
		table := newTable(t)
		answer := table.Answer(q)
		if answer == nil {
			if len(q) >= 12 && len(q) <= MaxQuery && q[2]&0x80 == 0 {
				t.Fatalf("no answer to % x", q)
			}
			return
		}
		var m dnsmessage.Message
		if err := m.Unpack(answer); err != nil {
			t.Fatalf("answer % x: %v", answer, err)
		}
		if !m.Response || answer[0] != q[0] || answer[1] != q[1] || len(answer) > 600 || len(m.Answers) > 1 {
			t.Fatalf("answer %+v of %d bytes", m, len(answer))
		}
	})
}
