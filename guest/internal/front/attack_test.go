package front

import (
	"bufio"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"torno.internal/protocol"
	"torno.internal/protocol/http1"
)

// A disagreement is one request on one connection, and what comes of it.
type disagreement struct {
	name, sni, text string
	want            string // how the status and reason begin
}

func (h *house) refuse(t *testing.T, cases []disagreement) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			before := h.asked.Load()
			if got := status(h.raw(h.addr, c.sni), c.text); !strings.HasPrefix(got, c.want) {
				t.Errorf("answer %q, want %q", got, c.want)
			}
			if reached := h.asked.Load() - before; (reached == 1) != (c.want == "200") {
				t.Errorf("%d exchanges reached the broker", reached)
			}
		})
	}
}

// SNI, Host, absolute form and port name one authority, or the request is refused.
func TestAttack11Disagreement(t *testing.T) {
	h := newHouse(t)
	h.refuse(t, []disagreement{
		{"all agree", "a.example", "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", "200"},
		{"another case", "a.example", "GET / HTTP/1.1\r\nHost: A.Example\r\n\r\n", "200"},
		{"trailing dot", "a.example", "GET / HTTP/1.1\r\nHost: a.example.\r\n\r\n", "200"},
		{"own port", "a.example", "GET / HTTP/1.1\r\nHost: a.example:443\r\n\r\n", "200"},
		{"absolute form", "a.example", "GET https://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", "200"},
		{"SNI differs", "a.example", "GET / HTTP/1.1\r\nHost: b.example\r\n\r\n", "421 misdirected"},
		{"below the name", "a.example", "GET / HTTP/1.1\r\nHost: x.a.example\r\n\r\n", "421 misdirected"},
		{"another port", "a.example", "GET / HTTP/1.1\r\nHost: a.example:8443\r\n\r\n", "421 misdirected"},
		{"absolute form differs", "a.example", "GET https://b.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", "421 misdirected"},
		{"absolute form and SNI differ", "a.example", "GET https://b.example/ HTTP/1.1\r\nHost: b.example\r\n\r\n", "421 misdirected"},
		{"userinfo in Host", "a.example", "GET / HTTP/1.1\r\nHost: a.example@b.example\r\n\r\n", "400 bad_"},
		{"userinfo in the target", "a.example", "GET https://u@a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", "400 bad_"},
		{"two Hosts", "a.example", "GET / HTTP/1.1\r\nHost: a.example\r\nHost: a.example\r\n\r\n", "400 bad_request"},
		{"no Host", "a.example", "GET / HTTP/1.1\r\n\r\n", "400 bad_request"},
		{"CONNECT", "a.example", "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n", "400 bad_request"},
		{"another scheme", "a.example", "GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", "400 bad_request"},
	})
}

// Spellings of a host that some parser reads as another.
func TestAttack13Host(t *testing.T) {
	h := newHouse(t)
	var cases []disagreement
	for _, host := range []string{"a.example%00", "a.example%2eb", "b\xc3\xa4.example", "0x7f.1", "2130706433", "[fe80::1%25eth0]", "a..example",
		"a.example:", "a.example:0", "a.example:99999", "a.example:+443", "a.example/", "a.example?", "a example", strings.Repeat("a.", 130) + "a"} {
		cases = append(cases, disagreement{fmt.Sprintf("%.20q", host), "a.example", "GET / HTTP/1.1\r\nHost: " + host + "\r\n\r\n", "400 bad_"})
	}
	h.refuse(t, cases)
}

// Credential and framing fields can't be nominated away.
func TestAttack17Nominated(t *testing.T) {
	h := newHouse(t)
	cases := []disagreement{{"an own field", "a.example", "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: x-mine\r\nX-Mine: 1\r\n\r\n", "200"}}
	for _, name := range []string{"Authorization", "x-api-key", "Cookie", "close, authorization", "proxy-authorization", "content-type", "expect"} {
		cases = append(cases, disagreement{name, "a.example", "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: " + name + "\r\n\r\n", "400 bad_request"})
	}
	h.refuse(t, cases)
}

// What parsers are known to read differently never reaches the broker, nor does what follows it.
func TestAttack18Smuggling(t *testing.T) {
	h := newHouse(t)
	var cases []disagreement
	for name, head := range map[string]string{
		"CL and TE":    "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
		"two CL":       "Content-Length: 4\r\nContent-Length: 4\r\n",
		"CL list":      "Content-Length: 4, 4\r\n",
		"signed CL":    "Content-Length: +4\r\n",
		"negative CL":  "Content-Length: -1\r\n",
		"huge CL":      "Content-Length: 99999999999999999999\r\n",
		"TE identity":  "Transfer-Encoding: identity\r\n",
		"TE chunkedx":  "Transfer-Encoding: chunkedx\r\n",
		"two TE":       "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
		"folded TE":    "Transfer-Encoding:\r\n chunked\r\n",
		"space before": "Content-Length : 4\r\n",
		"bare LF":      "X: 1\nContent-Length: 4\r\n",
		"NUL":          "X: a\x00b\r\n",
		"no colon":     "Nothing\r\n",
	} {
		cases = append(cases, disagreement{name, "a.example", "POST / HTTP/1.1\r\nHost: a.example\r\n" + head + "\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a.example\r\n\r\n", "400 bad_request"})
	}
	for i := range cases {
		switch cases[i].name {
		case "TE identity", "TE chunkedx":
			cases[i].want = "501 unsupported"
		}
	}
	h.refuse(t, cases)
}

// The broker's own scheme, through every door: 400, and no exchange.
func TestAttack41SchemeTorno(t *testing.T) {
	h := newHouse(t)
	text := "GET torno://broker/v1/leaf HTTP/1.1\r\nHost: %s\r\n\r\n"
	for _, host := range []string{"broker", "a.example"} {
		h.refuse(t, []disagreement{
			{"captured TLS", "a.example", fmt.Sprintf(text, host), "400 bad_request"},
			{"captured plain", "", fmt.Sprintf(text, host), "400 bad_request"},
		})
		if got := status(h.raw(h.proxy, ""), fmt.Sprintf(text, host)); got != "400 bad_request" {
			t.Errorf("proxy: %q", got)
		}
	}
	if n := h.asked.Load(); n != 0 {
		t.Errorf("%d exchanges reached the broker", n)
	}
}

// The explicit proxy: absolute form, CONNECT to TLS, and nothing that says two things.
func TestProxy(t *testing.T) {
	h := newHouse(t)
	for name, c := range map[string]struct{ text, want string }{
		"absolute form":       {"GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", "200"},
		"origin form":         {"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", "400 bad_request"},
		"Host differs":        {"GET http://a.example/ HTTP/1.1\r\nHost: b.example\r\n\r\n", "421 misdirected"},
		"https without TLS":   {"GET https://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", "400 bad_request"},
		"CONNECT no port":     {"CONNECT a.example HTTP/1.1\r\nHost: a.example\r\n\r\n", "400"},
		"CONNECT two hosts":   {"CONNECT a.example:443 HTTP/1.1\r\nHost: b.example:443\r\n\r\n", "400 bad_"},
		"CONNECT with a tail": {"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\nGET / HTTP/1.1\r\n", "400 bad_request"},
	} {
		if got := status(h.raw(h.proxy, ""), c.text); !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	for name, c := range map[string]struct{ connect, request, want string }{
		"same host":     {"a.example:443", "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", "200"},
		"another host":  {"a.example:443", "GET / HTTP/1.1\r\nHost: b.example\r\n\r\n", "421 misdirected"},
		"another port":  {"a.example:443", "GET / HTTP/1.1\r\nHost: a.example:444\r\n\r\n", "421 misdirected"},
		"CONNECT again": {"a.example:443", "CONNECT b.example:443 HTTP/1.1\r\nHost: b.example:443\r\n\r\n", "400 bad_request"},
	} {
		conn := h.raw(h.proxy, "")
		fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", c.connect, c.connect)
		r := bufio.NewReader(conn)
		resp, err := http.ReadResponse(r, nil)
		if err != nil || resp.StatusCode != 200 || r.Buffered() > 0 {
			t.Fatalf("%s: CONNECT %v, %v", name, resp, err)
		}
		resp.Body.Close()
		if got := status(conn, c.request); got != c.want { // plain HTTP inside
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// Nothing a workload writes comes out with an authority that its connection did not name.
func FuzzAuthority(f *testing.F) {
	f.Add("a.example", "", "a.example", "")
	f.Add("a.example", "https", "a.example:443", "A.example")
	f.Fuzz(func(t *testing.T, name, scheme, host, target string) {
		c := &conn{scheme: "https", name: name, port: 443}
		a, err := c.authority(&http1.RequestHead{Scheme: scheme, Host: host, Authority: target})
		if err != nil {
			return
		}
		if name != "" && a.Host != name || a.Port != 443 {
			t.Errorf("connection for %q, authority %v", name, a)
		}
		if b, err := protocol.ParseAuthority(host, 443); err != nil || b != a {
			t.Errorf("Host %q became %v", host, a)
		}
	})
}
