package upstream

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"torno.internal/protocol"
)

// echo is a server of its own windows: it gives back exactly what it received, or nothing where give is
// nil, and answers what it received.
func echo(first []http2.Setting, give func(f *h2Fake, id uint32, n uint32)) func(f *h2Fake) {
	return func(f *h2Fake) {
		_ = f.WriteSettings(first...)
		for {
			id, end, _, err := f.request()
			if err != nil {
				return
			}
			var all []byte
			for !end {
				var b []byte
				if b, end, err = f.data(); err != nil {
					return
				}
				all = append(all, b...)
				if len(b) > 0 {
					give(f, id, uint32(len(b)))
				}
			}
			f.headers(id, false, ":status", "200")
			for n := 0; len(all) > 0; all = all[n:] {
				n = min(len(all), h2FrameSize)
				_ = f.WriteData(id, false, all[:n])
			}
			_ = f.WriteData(id, true, nil)
		}
	}
}

func giveBoth(f *h2Fake, id uint32, n uint32) {
	_ = f.WriteWindowUpdate(0, n)
	_ = f.WriteWindowUpdate(id, n)
}

func window(n uint32) http2.Setting {
	return http2.Setting{ID: http2.SettingInitialWindowSize, Val: n}
}

// TestH2Windows uploads through windows of every size, and never a byte more than they hold.
func TestH2Windows(t *testing.T) {
	for _, tt := range []struct {
		name  string
		first []http2.Setting
		size  int
		give  func(f *h2Fake, id uint32, n uint32)
	}{
		{"one byte", []http2.Setting{window(1)}, 3000, giveBoth},
		{"seven bytes", []http2.Setting{window(7)}, 20_000, giveBoth},
		{"default", nil, 300_000, giveBoth},
		{"larger than the connection's", []http2.Setting{window(1 << 20)}, 300_000, giveBoth},
		{"stream's first", []http2.Setting{window(1000)}, 100_000, func(f *h2Fake, id uint32, n uint32) {
			_ = f.WriteWindowUpdate(id, n)
			_ = f.WriteWindowUpdate(0, n)
		}},
		{"by settings alone", []http2.Setting{window(0)}, 50_000, func(*h2Fake, uint32, uint32) {}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newH2Fake(t, func(f *h2Fake) {
				if tt.name == "by settings alone" {
					time.AfterFunc(50*time.Millisecond, func() { _ = http2.NewFramer(f.conn, nil).WriteSettings(window(60_000)) })
				}
				echo(tt.first, tt.give)(f)
			})
			s.mustDo(t, get("/"), "") // the windows are those of a settled connection
			content := strings.Repeat("0123456789", tt.size/10)
			res := s.mustDo(t, &protocol.Request{Method: "POST", Path: "/"}, content)
			if res.Content != content {
				t.Errorf("%d bytes came back of %d", len(res.Content), len(content))
			}
			s.wantConns(t, 1)
		})
	}
}

// TestH2WindowHeld sends what the windows hold and then waits, also after they shrank below nothing.
func TestH2WindowHeld(t *testing.T) {
	var received atomic.Int64
	step := make(chan struct{})
	s := newH2Fake(t, func(f *h2Fake) {
		_ = f.WriteSettings(window(10_000))
		id, _, _, _ := f.request()
		go func() {
			<-step
			_ = f.WriteSettings(window(5_000)) // 5,000 below nothing
			_ = f.WriteWindowUpdate(id, 5_000)
			<-step
			_ = f.WriteWindowUpdate(id, 1)
			<-step
			_ = f.WriteWindowUpdate(id, 1<<20)
			<-step
			_ = f.WriteWindowUpdate(0, 1<<20)
			f.headers(id, true, ":status", "200")
		}()
		for {
			b, _, err := f.data()
			if err != nil {
				return
			}
			received.Add(int64(len(b)))
		}
	})
	x, err := s.client.Open(t.Context(), s.key)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Release(true)
	// Only a settled connection has the small window from the start.
	for x.conn.h2.settledWindow() != 10_000 {
		time.Sleep(time.Millisecond)
	}
	if err := x.WriteHead(&protocol.Request{Method: "POST", Path: "/"}, nil, 100_000); err != nil {
		t.Fatal(err)
	}
	sent := make(chan error, 1)
	go func() {
		_, err := x.Write(make([]byte, 100_000))
		sent <- errors.Join(err, x.CloseWrite(nil))
	}()
	for _, want := range []int64{10_000, 10_000, 10_001, 65_535, 100_000} {
		deadline := time.Now().Add(5 * time.Second)
		for received.Load() < want && time.Now().Before(deadline) {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(10 * time.Millisecond) // for more to come
		if got := received.Load(); got != want {
			t.Fatalf("server received %d bytes, want %d", got, want)
		}
		if want < 100_000 {
			step <- struct{}{}
		}
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	if err := x.ReadResponse(new(protocol.Response)); err != nil {
		t.Error(err)
	}
}

func (h *h2conn) room() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return cap(h.content.buf)
}

func (h *h2conn) settledWindow() int32 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.window
}

// TestH2SlowReader receives no more than the window while nobody reads, and all of it once somebody does.
func TestH2SlowReader(t *testing.T) {
	const size = 3 * h2Window
	var granted, sent atomic.Int64
	granted.Store(h2DefaultWindow)
	var stream atomic.Int64
	stream.Store(h2Window)
	s := newH2Fake(t, func(f *h2Fake) {
		_ = f.WriteSettings()
		id, _, _, _ := f.request() // takes the first update of the connection
		granted.Store(h2Window)
		go func() {
			f.headers(id, false, ":status", "200")
			for n := int64(0); n < size; {
				room := min(granted.Load(), stream.Load()) - n
				if room <= 0 {
					time.Sleep(time.Millisecond)
					continue
				}
				k := min(room, h2FrameSize, size-n)
				if f.WriteData(id, n+k == size, make([]byte, k)) != nil {
					return
				}
				n += k
				sent.Store(n)
			}
		}()
		for {
			fr, err := f.ReadFrame()
			if err != nil {
				return
			}
			if w, ok := fr.(*http2.WindowUpdateFrame); ok {
				window := &granted
				if w.StreamID != 0 {
					window = &stream
				}
				window.Add(int64(w.Increment))
			}
		}
	})
	x := s.begin(t, t.Context())
	defer x.Release(true)
	if err := x.ReadResponse(new(protocol.Response)); err != nil {
		t.Fatal(err)
	}
	for sent.Load() < h2Window {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(20 * time.Millisecond)
	if n := sent.Load(); n != h2Window {
		t.Errorf("%d bytes were granted to a server that nobody reads, want %d", n, h2Window)
	}
	if n := x.conn.h2.room(); n > h2Window {
		t.Errorf("buffer of %d bytes", n)
	}
	n, err := io.Copy(io.Discard, x)
	if err != nil || n != size {
		t.Errorf("%d bytes, %v, want %d", n, err, size)
	}
	if n := x.conn.h2.room(); n > h2KeptBuffer {
		t.Errorf("%d bytes stay with the idle connection", n)
	}
}

// TestH2OverWindow cuts off a server that sends more than it was granted.
func TestH2OverWindow(t *testing.T) {
	told := make(chan http2.ErrCode, 1)
	s := newH2Fake(t, func(f *h2Fake) {
		_ = f.WriteSettings()
		id, _, _, _ := f.request()
		ok(f, id)
		for range h2Window/h2FrameSize + 1 {
			_ = f.WriteData(id, false, make([]byte, h2FrameSize))
		}
		code, _ := f.drain()
		told <- code
	})
	x := s.begin(t, t.Context())
	defer x.Release(true)
	if err := x.ReadResponse(new(protocol.Response)); err != nil {
		t.Fatal(err)
	}
	if code := <-told; code != http2.ErrCodeFlowControl {
		t.Errorf("server was told %v", code)
	}
	n, err := io.Copy(io.Discard, x)
	if n != h2Window || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%d bytes, %v, want %d", n, err, h2Window)
	}
	wantReason(t, err, protocol.ReasonUpstreamProtocol)
}

// TestH2Padding gives padding back to the window at once, for nobody will read it.
func TestH2Padding(t *testing.T) {
	const frames = 2 * h2Window / 257
	s := newH2Fake(t, func(f *h2Fake) {
		_ = f.WriteSettings()
		id, _, _, _ := f.request()
		ok(f, id)
		for i := range frames {
			_ = f.WriteDataPadded(id, i == frames-1, []byte("x"), make([]byte, 255))
		}
		f.drain()
	})
	x := s.begin(t, t.Context())
	defer x.Release(true)
	if err := x.ReadResponse(new(protocol.Response)); err != nil {
		t.Fatal(err)
	}
	for x.Buffered() < frames {
		time.Sleep(time.Millisecond)
	}
	if n, err := io.Copy(io.Discard, x); err != nil || n != frames {
		t.Errorf("%d bytes, %v", n, err)
	}
}

// TestH2ContentLength holds servers to the length that they announced.
func TestH2ContentLength(t *testing.T) {
	for _, tt := range []struct {
		name, method, status, length, content string
		want                                  string // read before the error
		ok                                    bool
	}{
		{"right", "GET", "200", "5", "hello", "hello", true},
		{"short", "GET", "200", "5", "hell", "hell", false},
		{"long", "GET", "200", "5", "hello!", "", false},
		{"none and content", "GET", "200", "0", "h", "", false},
		{"HEAD", "HEAD", "200", "5", "", "", true},
		{"HEAD with content", "HEAD", "200", "5", "hello", "", false},
		{"204 with content", "GET", "204", "5", "hello", "", false},
		{"304 with content", "GET", "304", "5", "hello", "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newH2Fake(t, func(f *h2Fake) {
				_ = f.WriteSettings()
				id, _, _, _ := f.request()
				f.headers(id, false, ":status", tt.status, "content-length", tt.length)
				_ = f.WriteData(id, false, []byte(tt.content))
				_ = f.WriteData(id, true, nil)
				f.drain()
			})
			req := get("/")
			req.Method = tt.method
			res, err := s.do(t.Context(), req, "")
			if tt.ok != (err == nil) || res.Content != tt.want {
				t.Errorf("content %q, %v, want %q, %v", res.Content, err, tt.want, tt.ok)
			}
			if !tt.ok {
				wantReason(t, err, protocol.ReasonUpstreamProtocol)
			}
		})
	}
}

// TestH2Buffer compares with a plain buffer.
func TestH2Buffer(t *testing.T) {
	var b h2Buffer
	var want bytes.Buffer
	next := byte(0)
	for i := range 2000 {
		in := make([]byte, i*7919%5000)
		for j := range in {
			in[j] = next
			next++
		}
		if want.Len()+len(in) <= h2Window {
			b.write(in)
			want.Write(in)
		}
		out := make([]byte, i*104729%4800)
		n := b.read(out)
		if got := out[:n]; !bytes.Equal(got, want.Next(len(out))) || b.len() != want.Len() {
			t.Fatalf("step %d: %d bytes, left %d, want %d", i, n, b.len(), want.Len())
		}
		if cap(b.buf) > h2Window {
			t.Fatalf("step %d: capacity %d", i, cap(b.buf))
		}
	}
}
