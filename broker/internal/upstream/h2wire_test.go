package upstream

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"torno.internal/broker/internal/credential"
	"torno.internal/protocol"
)

// serve answers every request of a connection with content x.
func serve(f *h2Fake, id uint32) {
	f.headers(id, false, ":status", "200")
	_ = f.WriteData(id, true, []byte("x"))
}

// TestH2Fields looks at the fields as they are on the wire: their order, what ends here, and which of
// them nobody may index.
func TestH2Fields(t *testing.T) {
	got := make(chan []hpack.HeaderField, 2)
	s := newH2Fake(t, func(f *h2Fake) {
		_ = f.WriteSettings()
		for {
			id, _, fields, err := f.request()
			if err != nil {
				return
			}
			got <- fields
			serve(f, id)
		}
	})
	req := get("/p", field("authorization", "mine"), field("cookie", "a=b"), field("te", "Trailers"), field("accept", "*/*"), field("keep-alive", "1"),
		field("x-key", "mine"), field("x-key2", "other"), field("te", "gzip"), field("content-length", "9"))
	long := strings.Repeat("k", 300)
	want := []hpack.HeaderField{
		{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "https"}, {Name: ":authority", Value: "example.com"}, {Name: ":path", Value: "/p"},
		{Name: "cookie", Value: "a=b", Sensitive: true}, {Name: "te", Value: "Trailers"}, {Name: "accept", Value: "*/*"}, {Name: "x-key2", Value: "other"},
		{Name: "authorization", Value: "Bearer sk-1", Sensitive: true}, {Name: "x-key", Value: long, Sensitive: true},
	}
	for range 2 {
		s.mustDo(t, req, "", cred("authorization", "Bearer sk-1"), cred("X-Key", long))
		if diff := cmp.Diff(want, <-got); diff != "" {
			t.Errorf("fields (-want +got):\n%s", diff)
		}
	}
	s.wantConns(t, 1)
}

// TestH2NeverIndexed looks at the first bits of each field on the wire (RFC 7541 §6): no table is used
// for anything, and a credential is a literal that stays one.
func TestH2NeverIndexed(t *testing.T) {
	blocks := make(chan []byte, 1)
	s := newH2Fake(t, func(f *h2Fake) {
		_ = f.WriteSettings()
		for {
			fr, err := f.ReadFrame()
			if err != nil {
				return
			}
			if h, ok := fr.(*http2.HeadersFrame); ok {
				blocks <- bytes.Clone(h.HeaderBlockFragment())
				serve(f, h.StreamID)
			}
		}
	})
	for i := range 2 {
		s.mustDo(t, get("/", field("x-plain", "p")), "", cred("x-key", "sk-12345678"))
		b := <-blocks
		if i == 0 && b[0] != 0x20 {
			t.Errorf("the first block begins with %#02x, not with a table of size 0", b[0])
		}
		if want := []byte("\x10\x05x-key\x0bsk-12345678"); !bytes.HasSuffix(b, want) {
			t.Errorf("block %q does not end in %q", b, want)
		}
		plain := hpack.AppendHuffmanString([]byte{0x00, 0x80 | byte(hpack.HuffmanEncodeLength("x-plain"))}, "x-plain")
		if !bytes.Contains(b, plain) {
			t.Errorf("block %q has no plain literal %q", b, plain)
		}
	}
}

// A shape is what a frame of a request looks like.
type shape struct {
	Type http2.FrameType
	End  bool // END_STREAM
	Size int  // of DATA
}

// shapes reads the frames of one request.
func (f *h2Fake) shapes() (got []shape, id uint32, err error) {
	for end, whole := false, false; !end || !whole; {
		fr, err := f.ReadFrame()
		if err != nil {
			return nil, 0, err
		}
		next := shape{Type: fr.Header().Type}
		switch fr := fr.(type) {
		case *http2.HeadersFrame:
			next.End, whole = fr.StreamEnded(), fr.HeadersEnded()
		case *http2.ContinuationFrame:
			whole = fr.HeadersEnded()
		case *http2.DataFrame:
			next.End, next.Size = fr.StreamEnded(), len(fr.Data())
		default:
			continue
		}
		if fr.Header().Length > 16384 {
			return nil, 0, http2.ErrFrameTooLarge
		}
		id, end = fr.Header().StreamID, end || next.End
		got = append(got, next)
	}
	return got, id, nil
}

// TestH2Frames looks at the frames that requests are made of.
func TestH2Frames(t *testing.T) {
	shapes := make(chan []shape, 1)
	ctx := t.Context() // of all cases: the connection is one
	s := newH2Fake(t, func(f *h2Fake) {
		_ = f.WriteSettings()
		for {
			got, id, err := f.shapes()
			if err != nil {
				return
			}
			f.headers(id, true, ":status", "200")
			shapes <- got
		}
	})
	trailer := protocol.Fields{field("x-sum", "1")}
	for _, tt := range []struct {
		name    string
		length  int64
		fields  protocol.Fields
		flush   bool
		content []string
		trailer protocol.Fields
		want    []shape
	}{
		{"nothing", 0, nil, false, nil, nil, []shape{{http2.FrameHeaders, true, 0}}},
		{"nothing after all", -1, nil, false, nil, nil, []shape{{http2.FrameHeaders, true, 0}}},
		{"whole", 5, nil, false, []string{"hello"}, nil, []shape{{http2.FrameHeaders, false, 0}, {http2.FrameData, true, 5}}},
		{"two pieces", -1, nil, false, []string{"a", "bc"}, nil, []shape{{http2.FrameHeaders, false, 0}, {http2.FrameData, false, 1}, {http2.FrameData, true, 2}}},
		{"end on its own", -1, nil, true, []string{"a"}, nil, []shape{{http2.FrameHeaders, false, 0}, {http2.FrameData, false, 1}, {http2.FrameData, true, 0}}},
		{"trailers", 1, nil, false, []string{"a"}, trailer, []shape{{http2.FrameHeaders, false, 0}, {http2.FrameData, false, 1}, {http2.FrameHeaders, true, 0}}},
		{"trailers alone", -1, nil, false, nil, trailer, []shape{{http2.FrameHeaders, false, 0}, {http2.FrameHeaders, true, 0}}},
		{"long head", 1, protocol.Fields{field("a", strings.Repeat("\x80", 20<<10))}, false, []string{"x"}, nil,
			[]shape{{http2.FrameHeaders, false, 0}, {http2.FrameContinuation, false, 0}, {http2.FrameData, true, 1}}},
		{"longer head alone", 0, protocol.Fields{field("a", strings.Repeat("\x80", 40<<10))}, false, nil, nil,
			[]shape{{http2.FrameHeaders, true, 0}, {http2.FrameContinuation, false, 0}, {http2.FrameContinuation, false, 0}}},
		{"long content", 20000, nil, false, []string{strings.Repeat("x", 20000)}, nil,
			[]shape{{http2.FrameHeaders, false, 0}, {http2.FrameData, false, 16375}, {http2.FrameData, true, 3625}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x, err := s.client.Open(ctx, s.key)
			if err != nil {
				t.Fatal(err)
			}
			defer x.Release(true)
			req := &protocol.Request{Method: "POST", Path: "/", Fields: tt.fields}
			if err := x.WriteHead(req, []credential.Field{cred("x-key", "sk-1")}, tt.length); err != nil {
				t.Fatal(err)
			}
			for _, c := range tt.content {
				if _, err := io.WriteString(x, c); err != nil {
					t.Fatal(err)
				}
			}
			if tt.flush {
				if err := x.Flush(); err != nil {
					t.Fatal(err)
				}
			}
			if err := x.CloseWrite(tt.trailer); err != nil {
				t.Fatal(err)
			}
			if _, err := receive(x); err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff(tt.want, <-shapes); diff != "" {
				t.Errorf("frames (-want +got):\n%s", diff)
			}
		})
	}
	s.wantConns(t, 1)
}

// TestH2Length holds the writer to the length that it announced.
func TestH2Length(t *testing.T) {
	s := newH2Fake(t, func(f *h2Fake) { f.drain() })
	x, err := s.client.Open(t.Context(), s.key)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Release(true)
	if err := x.WriteHead(&protocol.Request{Method: "POST", Path: "/"}, nil, 3); err != nil {
		t.Fatal(err)
	}
	_, err = io.WriteString(x, "four")
	wantReason(t, err, protocol.ReasonBadRequest)
	if _, err = io.WriteString(x, "ab"); err != nil {
		t.Error(err)
	}
	wantReason(t, x.CloseWrite(nil), protocol.ReasonBadRequest)
	wantReason(t, x.ReadResponse(new(protocol.Response)), protocol.ReasonSessionEnded)
}

// TestH2Wiped looks for a credential in the buffers that it passed through, sent or not.
func TestH2Wiped(t *testing.T) {
	s := newH2Fake(t, func(f *h2Fake) {
		_ = f.WriteSettings()
		id, _, _, _ := f.request()
		serve(f, id)
		f.drain()
	})
	for _, sent := range []bool{true, false} {
		x, err := s.client.Open(t.Context(), s.key)
		if err != nil {
			t.Fatal(err)
		}
		if err := x.WriteHead(get("/"), []credential.Field{cred("x-key", "sk-secret")}, 0); err != nil {
			t.Fatal(err)
		}
		h := x.conn.h2
		section := h.section.b
		if !bytes.Contains(section, []byte("sk-secret")) {
			t.Error("the section does not hold the credential")
		}
		if sent {
			if err := x.CloseWrite(nil); err != nil {
				t.Fatal(err)
			}
			_, _ = receive(x)
		}
		x.Release(sent)
		for _, b := range [][]byte{section, h.section.b, h.out.b} {
			if bytes.Contains(b[:cap(b)], []byte("sk-secret")) {
				t.Errorf("sent %v: a buffer still holds the credential", sent)
			}
		}
		if cap(h.out.b) == 0 {
			t.Error("there is no buffer to look at")
		}
	}
}

// TestH2OutGrow wipes what it leaves behind.
func TestH2OutGrow(t *testing.T) {
	for _, secret := range []bool{true, false} {
		o := h2Out{secret: secret}
		_, _ = o.Write([]byte("sk-secret"))
		old := o.b
		_, _ = o.Write(make([]byte, 64<<10))
		if left := bytes.Contains(old, []byte("sk-secret")); left == secret {
			t.Errorf("secret %v: left behind %v", secret, left)
		}
		o.reset()
		if o.b != nil || o.secret {
			t.Errorf("kept %d bytes", cap(o.b))
		}
	}
}

func TestH2MistakesOfOurs(t *testing.T) {
	s := newH2Fake(t, func(f *h2Fake) { f.drain() })
	for _, trailer := range []protocol.Field{field("X-Upper", "1"), field("a b", "1"), field("", "1"), field("x", "a\r\nb"), field("x", "a\x00")} {
		x, err := s.client.Open(t.Context(), s.key)
		if err != nil {
			t.Fatal(err)
		}
		err = errors.Join(x.WriteHead(&protocol.Request{Method: "POST", Path: "/"}, nil, -1), x.CloseWrite(protocol.Fields{trailer}))
		wantReason(t, err, protocol.ReasonBadRequest)
		x.Release(true)
	}
	x, err := s.client.Open(t.Context(), s.key)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Release(true)
	wantReason(t, x.WriteHead(get("/#"), nil, 0), protocol.ReasonBadRequest)
}
