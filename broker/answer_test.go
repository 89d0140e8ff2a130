package broker

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"torno.internal/protocol"
)

// raw lets a handler write its answer itself.
func raw(answer func(key string) string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		c, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, answer(key))
	})
}

// TestAttack28NominatedCoding lets the upstream say that Content-Encoding ends at this hop (RFC 9110 §7.6.1), so that
// nobody would know how to search the content, and the workload how to read it.
func TestAttack28NominatedCoding(t *testing.T) {
	_, _, stream := opened(t, raw(func(key string) string {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		_, _ = io.WriteString(w, "you sent "+key)
		_ = w.Close()
		return fmt.Sprintf("HTTP/1.1 200 OK\r\nConnection: content-encoding\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s", b.Len(), b.String())
	}), generous)
	resp, body, err := stream().ask(get("/"), "")
	if err != nil {
		t.Fatal(err)
	}
	if z, err := gzip.NewReader(strings.NewReader(body)); err == nil {
		plain, _ := io.ReadAll(z)
		body = string(plain)
	}
	if leaks(body) || !strings.HasPrefix(body, "you sent ") || resp.Fields.Get("content-encoding") != "" {
		t.Errorf("%v, %q", resp.Fields, body)
	}
}

// TestAttack28CodedMessages lets a gRPC server repeat the key in a compressed message, as it would where the client's own
// message was compressed, and where the client asked for it.
func TestAttack28CodedMessages(t *testing.T) {
	asked := make(chan string, 1)
	_, _, stream := opened(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.Header.Get("Grpc-Accept-Encoding") + r.Header.Get("Connect-Accept-Encoding") + r.Header.Get("A-Im")
		w.Header().Set("Connection", r.URL.Query().Get("field"))
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set(r.URL.Query().Get("field"), r.URL.Query().Get("coding"))
		z := gzip.NewWriter(w)
		_, _ = io.WriteString(z, r.Header.Get("Authorization"))
		_ = z.Close()
	}), generous)
	for _, field := range []string{"Grpc-Encoding", "Connect-Content-Encoding", "IM"} {
		for coding, want := range map[string]int{"gzip": 502, "identity": 200} {
			resp, _, err := stream().ask(get("/?field="+field+"&coding="+coding, protocol.Field{Name: "grpc-accept-encoding", Value: "gzip"},
				protocol.Field{Name: "connect-accept-encoding", Value: "gzip"}, protocol.Field{Name: "a-im", Value: "gzip"}), "")
			if sent := <-asked; err != nil || resp.Status != want || sent != "" {
				t.Errorf("%s: %s: status %d, %v, want %d; asked for %q", field, coding, resp.Status, err, want, sent)
			}
		}
	}
}

// TestAttack28FieldName lets the upstream repeat the key as the name of a field, which every reader spells in lower
// case. A neighbour whose name is no part of the key passes.
func TestAttack28FieldName(t *testing.T) {
	const key = "sk-Test-4C1D9e8F7a6BqWxYzKlMnOpQrStUvWxYzAbCdEf"
	srv := raw(func(key string) string {
		return "HTTP/1.1 200 OK\r\nX-" + key + ": 1\r\nX-Neighbour: " + strings.ToLower(key) + "\r\nContent-Length: 0\r\n\r\n"
	})
	d, _, _ := opened(t, srv, generous)
	d.must(d.set("b", "KEY", key, 1))
	s := d.session("b")
	h, err := d.hello(s.Broker, 1)
	d.must(err)
	p, err := d.dial(s.Broker, protocol.KindForward, h.Token)
	d.must(err)
	resp, _, err := p.ask(get("/"), "")
	d.must(err)
	for _, f := range resp.Fields {
		if strings.Contains(strings.ToLower(f.Name+f.Value), strings.ToLower(key[12:24])) {
			t.Errorf("field %s: %s", f.Name, f.Value)
		}
	}
	if resp.Fields.Get("x-neighbour") == "" {
		t.Errorf("the answer did not come through: %v", resp.Fields)
	}
}
