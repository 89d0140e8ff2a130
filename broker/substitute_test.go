package broker

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// A delivered request is one as it arrived upstream.
type delivered struct {
	proto, body        string
	length             int64 // -1: it was not said
	coding, auth, hash string
	err                error
}

// substituting begins a session whose secret is put into content, and returns where requests arrive.
func substituting(t *testing.T, scheme string, replace ...control.Place) (*holder, chan delivered) {
	t.Helper()
	arrived := make(chan delivered, 64)
	d := twoHosts(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		arrived <- delivered{r.Proto, string(b), r.ContentLength, r.Header.Get("Content-Encoding"), r.Header.Get("Authorization"),
			r.Header.Get("Content-Digest") + r.Header.Get("Content-Md5"), err}
	}), nil)
	m := bearerOf("KEY", 2, "")
	m.Inject.Scheme, m.Replace = scheme, replace
	d.must(d.setMeta(m, keyOf(4)))
	return d.holding("KEY", "OTHER"), arrived
}

func posting(kind, body string, fields ...protocol.Field) *protocol.Request {
	req := get("/token", append(protocol.Fields{{Name: "content-type", Value: kind}}, fields...)...)
	req.Method = "POST"
	if body != "" {
		req.Fields = append(req.Fields, protocol.Field{Name: "content-length", Value: fmt.Sprint(len(body))})
	}
	return req
}

const (
	formType = "application/x-www-form-urlencoded"
	jsonType = "application/json"
)

func packed(s string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = io.WriteString(w, s)
	_ = w.Close()
	return b.String()
}

// TestSubstitute puts a placeholder into content of every kind and framing, over HTTP/1.1 and HTTP/2: where the
// secret was set for that kind its value arrives, with the right length, and elsewhere the placeholder.
func TestSubstitute(t *testing.T) {
	h, arrived := substituting(t, control.SchemeContent, control.PlaceForm, control.PlaceJSON)
	p := h.placeholder["KEY"]
	form := "client_secret=" + p + "&grant_type=x"
	var text strings.Builder // that is not packed to nearly nothing
	for i := range 120_000 {
		fmt.Fprintf(&text, "é%x", i*i)
	}
	long := text.String()
	for name, tt := range map[string]struct {
		kind, body string
		declared   bool
		coding     string
		replaced   bool
		length     bool // it is said upstream
	}{
		"form":                    {formType, form, true, "", true, true},
		"form, chunked":           {formType, form, false, "", true, false},
		"JSON":                    {jsonType, `{"key":"` + p + `"}`, true, "", true, true},
		"JSON, chunked":           {"application/vnd.x+json; charset=utf-8", `{"key":"` + p + `"}`, false, "", true, false},
		"JSON, gzip":              {jsonType, `{"key":"` + p + `"}`, true, "gzip", true, true},
		"JSON, gzip, chunked":     {jsonType, `{"key":"` + p + `"}`, false, "gzip", true, false},
		"JSON, 2 MiB":             {jsonType, `["` + long + p + long + `"]`, true, "", true, false},
		"JSON, gzip of 2 MiB":     {jsonType, `["` + long + p + long + `"]`, true, "gzip", true, false},
		"JSON, br":                {jsonType, "not really", true, "br", false, true},
		"text":                    {"text/plain", p, true, "", false, true},
		"multipart":               {"multipart/form-data; boundary=x", p, true, "", false, true},
		"no placeholder":          {jsonType, `{"key":"none"}`, true, "", true, true},
		"a placeholder in pieces": {jsonType, `{"key":"` + p[:10] + `"}`, true, "", true, true},
	} {
		for _, version := range []string{"HTTP/1.1", "HTTP/2.0"} {
			sent := tt.body
			req := posting(tt.kind, "", protocol.Field{Name: "content-digest", Value: "sha-256=:x:"}, protocol.Field{Name: "content-md5", Value: "x"})
			if tt.coding == "gzip" {
				sent = packed(tt.body)
			}
			if tt.coding != "" {
				req.Fields = append(req.Fields, protocol.Field{Name: "content-encoding", Value: tt.coding})
			}
			if tt.declared {
				req.Fields = append(req.Fields, protocol.Field{Name: "content-length", Value: fmt.Sprint(len(sent))})
			}
			if version == "HTTP/2.0" {
				req.Fields = append(req.Fields, protocol.Field{Name: protocol.FieldHTTP, Value: "2"})
			}
			peer := h.stream()
			var resp protocol.Response
			d := h.desk
			d.must(peer.w.WriteRequest(req))
			if !tt.declared {
				d.must(peer.w.Flush()) // so that the content does not come with the head
				time.Sleep(5 * time.Millisecond)
			}
			_, err := io.WriteString(peer.w, sent)
			d.must(err)
			d.must(peer.w.Close(nil))
			d.must(peer.r.ReadResponse(&resp))
			if resp.Status != 200 {
				t.Fatalf("%s over %s: %+v", name, version, resp)
			}
			got := <-arrived
			want := delivered{proto: version, body: strings.ReplaceAll(tt.body, p, keyOf(4)), length: -1}
			if !tt.replaced {
				want.body, want.coding, want.hash = tt.body, tt.coding, "sha-256=:x:x"
			}
			if tt.length {
				want.length = int64(len(want.body))
			}
			if got != want {
				t.Errorf("%s over %s: %d bytes, length %d, coding %q, hash %q, %v; want %d bytes, length %d, coding %q: %.200q", name, version,
					len(got.body), got.length, got.coding, got.hash, got.err, len(want.body), want.length, want.coding, got.body)
			}
		}
	}
}

// TestSubstituteIsOptIn sends a placeholder in content for a secret that was set without that, for one kind of
// content alone, and to other hosts: it stays one.
func TestSubstituteIsOptIn(t *testing.T) {
	for name, tt := range map[string]struct {
		scheme  string
		replace []control.Place
		kind    string
		host    string
		want    bool
	}{
		"not set for it":        {control.SchemeBearer, nil, jsonType, "example.com", false},
		"set for forms":         {control.SchemeBearer, []control.Place{control.PlaceForm}, jsonType, "example.com", false},
		"set for JSON":          {control.SchemeBearer, []control.Place{control.PlaceJSON}, jsonType, "example.com", true},
		"another secret's host": {control.SchemeBearer, []control.Place{control.PlaceJSON}, jsonType, "example.com:8443", false},
		"nobody's host":         {control.SchemeBearer, []control.Place{control.PlaceJSON}, jsonType, "example.com:9443", false},
	} {
		h, arrived := substituting(t, tt.scheme, tt.replace...)
		body := `"` + h.placeholder["KEY"] + `"`
		req := posting(tt.kind, body)
		req.Authority = tt.host
		resp, _, err := h.stream().ask(req, body)
		h.must(err)
		if resp.Status != 200 {
			t.Fatalf("%s: %+v", name, resp)
		}
		got := <-arrived
		if strings.Contains(got.body, keyOf(4)) != tt.want || !tt.want && got.body != body {
			t.Errorf("%s: %q arrived", name, got.body)
		}
		if own := tt.host == "example.com"; strings.Contains(got.auth, keyOf(4)) != own {
			t.Errorf("%s: %q in the head", name, got.auth)
		}
		h.stop()
	}
}

// TestSubstituteBroken sends content that is not what was said, in ways that a buffer or a decoder meets: nobody
// takes it for whole, and no key leaves in it.
func TestSubstituteBroken(t *testing.T) {
	h, arrived := substituting(t, control.SchemeContent, control.PlaceJSON)
	body := `["` + h.placeholder["KEY"] + `"]`
	z := packed(body)
	bomb := packed(strings.Repeat(" ", 300<<20))
	gz := protocol.Field{Name: "content-encoding", Value: "gzip"}
	for name, tt := range map[string]struct {
		content string
		fields  protocol.Fields
	}{
		"shorter than was said":        {body, protocol.Fields{{Name: "content-length", Value: fmt.Sprint(len(body) + 1)}}},
		"longer than was said":         {body + "x", protocol.Fields{{Name: "content-length", Value: fmt.Sprint(len(body))}}},
		"much shorter, not buffered":   {body, protocol.Fields{{Name: "content-length", Value: "2000000"}}},
		"gzip that is cut":             {z[:len(z)-4], protocol.Fields{gz, {Name: "content-length", Value: fmt.Sprint(len(z) - 4)}}},
		"gzip that is none":            {body, protocol.Fields{gz, {Name: "content-length", Value: fmt.Sprint(len(body))}}},
		"gzip that is none, chunked":   {body, protocol.Fields{gz}},
		"gzip with something behind":   {z + "x", protocol.Fields{gz, {Name: "content-length", Value: fmt.Sprint(len(z) + 1)}}},
		"gzip beyond every proportion": {bomb, protocol.Fields{gz, {Name: "content-length", Value: fmt.Sprint(len(bomb))}}},
	} {
		p := h.stream()
		_, _, err := p.ask(posting(jsonType, "", tt.fields...), tt.content)
		p.Close()
		select {
		case got := <-arrived:
			if got.err == nil {
				t.Errorf("%s: %.100q arrived as a whole request (the workload saw %v)", name, got.body, err)
			}
		case <-time.After(200 * time.Millisecond):
		}
	}
	resp, _, err := h.stream().ask(posting(jsonType, body), body) // the control
	h.must(err)
	if got := <-arrived; resp.Status != 200 || got.err != nil || !strings.Contains(got.body, keyOf(4)) {
		t.Errorf("%+v, %+v", resp, got)
	}
}

// TestSubstituteExpect asks a client that waits for 100 (Continue) for content that is read before it is sent.
func TestSubstituteExpect(t *testing.T) {
	h, arrived := substituting(t, control.SchemeContent, control.PlaceForm)
	body := "s=" + h.placeholder["KEY"]
	p := h.stream()
	h.must(p.w.WriteRequest(posting(formType, body, protocol.Field{Name: "expect", Value: "100-continue"})))
	h.must(p.w.Flush())
	var resp protocol.Response
	h.must(p.r.ReadResponse(&resp))
	if resp.Status != 100 {
		t.Fatalf("%+v", resp)
	}
	_, err := io.WriteString(p.w, body)
	h.must(err)
	h.must(p.w.Close(nil))
	h.must(p.r.ReadResponse(&resp))
	if got := <-arrived; resp.Status != 200 || got.body != "s="+keyOf(4) || got.length != int64(len(got.body)) {
		t.Errorf("%+v, %+v", resp, got)
	}
	for _, r := range append(h.records("begin"), h.records("end")...) {
		if text := fmt.Sprintf("%+v", r); strings.Contains(text, keyOf(4)) {
			t.Errorf("the key is in the audit: %s", text)
		}
	}
}

// TestSpoiledContent sends content that can't be carried to its end: the workload and the audit are told that the
// request is at fault, and not that the session has ended, nor the server.
func TestSpoiledContent(t *testing.T) {
	h, _ := substituting(t, control.SchemeContent, control.PlaceForm)
	bomb := packed(strings.Repeat("a=b&", 2<<20))
	corrupt := packed(strings.Repeat("a=b&", 1000))
	corrupt = corrupt[:len(corrupt)-6] + "broken"
	count := 0
	for name, tt := range map[string]struct {
		kind, coding, body string
		said               int // its length; -1: none is
	}{
		"gzip beyond the ratio":           {formType, "gzip", bomb, len(bomb)},
		"gzip beyond the ratio, chunked":  {formType, "gzip", bomb, -1},
		"gzip with a wrong sum":           {formType, "gzip", corrupt, len(corrupt)},
		"gzip with a wrong sum, chunked":  {formType, "gzip", corrupt, -1},
		"gzip that is cut off, chunked":   {formType, "gzip", corrupt[:len(corrupt)/2], -1},
		"not gzip at all, chunked":        {formType, "gzip", "a=b", -1},
		"shorter than was said":           {formType, "", "a=b", 5},
		"longer than was said":            {formType, "", "a=b&c=d", 5},
		"shorter, and nothing replaced":   {"text/plain", "", "a=b", 5},
		"longer, and nothing is replaced": {"text/plain", "", "a=b&c=d", 5},
	} {
		for _, version := range []string{"1.1", "2"} {
			req := posting(tt.kind, "", protocol.Field{Name: protocol.FieldHTTP, Value: version})
			if tt.coding != "" {
				req.Fields = append(req.Fields, protocol.Field{Name: "content-encoding", Value: tt.coding})
			}
			if tt.said >= 0 {
				req.Fields = append(req.Fields, protocol.Field{Name: "content-length", Value: fmt.Sprint(tt.said)})
			}
			peer := h.stream()
			h.desk.must(peer.w.WriteRequest(req))
			h.desk.must(peer.w.Flush())
			time.Sleep(5 * time.Millisecond) // so that the content does not come with the head
			_, _ = io.WriteString(peer.w, tt.body)
			_ = peer.w.Close(nil)
			var resp protocol.Response
			if err := peer.r.ReadResponse(&resp); err != nil || resp.Status != 400 || resp.Fields.Get(protocol.FieldReason) != "bad_request" {
				t.Errorf("%s over HTTP/%s: %d %s, %v; want 400 bad_request", name, version, resp.Status, resp.Fields.Get(protocol.FieldReason), err)
			}
			count++
			last := h.desk.end(count)
			if last.Reason != "bad_request" || last.Status != 400 {
				t.Errorf("%s over HTTP/%s: the audit says %d %q", name, version, last.Status, last.Reason)
			}
			peer.Close()
		}
	}
}
