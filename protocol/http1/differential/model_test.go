package differential

import (
	"bytes"
	"io"
	"slices"
	"strings"

	"github.com/google/go-cmp/cmp"

	"torno.internal/protocol"
	"torno.internal/protocol/http1"
)

// A message is a request as we understand it.
type message struct {
	head    http1.RequestHead
	content string
	trailer protocol.Fields
	host    string // in the one spelling; empty if the request is not one to forward
	end     int    // where it ends on the wire
}

// understand reads the requests of wire up to the first that is refused or closes the connection.
func understand(wire string) ([]*message, error) {
	source := strings.NewReader(wire)
	r := http1.NewReader(source)
	var all []*message
	for {
		m, err := readMessage(r)
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		m.end = len(wire) - source.Len() - r.Buffered()
		all = append(all, m)
		if !m.head.KeepAlive || m.head.Method == "CONNECT" {
			return all, nil
		}
	}
}

func readMessage(r *http1.Reader) (*message, error) {
	m := &message{}
	if err := r.ReadRequest(&m.head); err != nil {
		return nil, err
	}
	if m.head.Method == "CONNECT" {
		return m, nil
	}
	content, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	m.content, m.trailer, m.host = string(content), r.Trailer(), hostOf(&m.head)
	return m, nil
}

// hostOf returns the one host that all parts of a head agree on, as the guest's front demands it.
func hostOf(h *http1.RequestHead) string {
	text := h.Host
	if text == "" {
		text = h.Authority
	}
	a, err := protocol.ParseAuthority(text, 80)
	if err != nil || !strings.HasPrefix(h.Path, "/") || h.Scheme != "" && h.Scheme != "http" {
		return ""
	}
	if h.Authority != "" {
		if target, err := protocol.ParseAuthority(h.Authority, 80); err != nil || target != a {
			return ""
		}
	}
	return a.String()
}

// forward writes a message as it leaves us, and returns with it what its head now is.
func forward(m *message) (sent *message, wire string, err error) {
	sent = &message{content: m.content, trailer: m.trailer, host: m.host}
	sent.head = http1.RequestHead{Method: m.head.Method, Target: m.head.Path, Path: m.head.Path, Host: m.host}
	sent.head.Fields = http1.StripConnection(m.head.Fields.Clone()).DelFunc(func(l protocol.Field) bool {
		return l.Name == "te" && !strings.EqualFold(l.Value, "trailers")
	})
	length := m.head.ContentLength
	if m.head.Chunked {
		length = http1.Unknown
	}
	var b bytes.Buffer
	w := http1.NewWriter(&b)
	if err := w.WriteRequest(m.head.Method, m.head.Path, m.host, sent.head.Fields, length); err != nil {
		return nil, "", err
	}
	if _, err := io.WriteString(w, m.content); err != nil {
		return nil, "", err
	}
	if err := w.Close(m.trailer); err != nil {
		return nil, "", err
	}
	return sent, b.String(), nil
}

func (m *message) trailerSize() (n int) {
	for _, l := range m.trailer {
		n += len(l.Name) + len(": \r\n") + len(l.Value)
	}
	return n
}

// A disagreement is a part of a message that an oracle reads differently.
type disagreement struct {
	oracle, part, ours, theirs string
	message                    *message
}

// compare returns how an oracle's reading of a request differs from ours.
func (o *oracle) compare(m *message, s *seen) []disagreement {
	var all []disagreement
	differ := func(part, ours, theirs string) {
		if ours != theirs {
			all = append(all, disagreement{o.name, part, ours, theirs, m})
		}
	}
	differ("method", m.head.Method, s.Method)
	if s.Target != m.head.Target {
		differ("target", m.head.Path, s.Target)
	}
	if m.host != "" && (s.Host != "" || m.head.Host != "") {
		differ("host", m.host, canonical(s.Host))
	}
	differ("content", m.content, s.Content)
	theirs := make(protocol.Fields, len(s.Fields))
	for i, f := range s.Fields {
		theirs[i] = protocol.Field{Name: strings.ToLower(f[0]), Value: f[1]}
	}
	if m.head.Proto == "HTTP/1.0" {
		theirs = theirs.Del("expect") // it means nothing there, and we say so by taking it away
	}
	return append(all, o.compareFields(m, theirs)...)
}

func canonical(host string) string {
	a, err := protocol.ParseAuthority(host, 80)
	if err != nil {
		return host
	}
	return a.String()
}

// compareFields compares the fields that do not end at this hop, name by name. The order of names means
// nothing, and net/http does not keep it.
func (o *oracle) compareFields(m *message, theirs protocol.Fields) (all []disagreement) {
	var hop protocol.Fields
	for _, l := range m.head.Fields {
		if l.Name == "connection" {
			hop = append(hop, l)
		}
	}
	byName := func(f protocol.Fields) map[string][]string {
		names := map[string][]string{}
		for _, l := range http1.StripConnection(append(hop.Clone(), f...)) {
			if l.Name != "content-length" && !slices.Contains(o.drops, l.Name) {
				names[l.Name] = append(names[l.Name], l.Value)
			}
		}
		return names
	}
	a, b := byName(m.head.Fields), byName(theirs)
	for name := range a {
		if !cmp.Equal(a[name], b[name]) {
			all = append(all, disagreement{o.name, "field " + name, strings.Join(a[name], "\n"), strings.Join(b[name], "\n"), m})
		}
	}
	for name := range b {
		if _, ok := a[name]; !ok {
			all = append(all, disagreement{o.name, "field " + name, "(none)", strings.Join(b[name], "\n"), m})
		}
	}
	return all
}
