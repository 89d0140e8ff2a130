package upstream

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"torno.internal/protocol"
)

// TestH2Reset has servers reset the stream in every phase.
func TestH2Reset(t *testing.T) {
	for _, tt := range []struct {
		name    string
		play    func(f *h2Fake, id uint32)
		head    bool   // a head can be read
		content string // and this much content
		err     string // then
	}{
		{"before the head", func(f *h2Fake, id uint32) { _ = f.WriteRSTStream(id, http2.ErrCodeRefusedStream) }, false, "", "REFUSED_STREAM"},
		{"after an interim", func(f *h2Fake, id uint32) {
			f.headers(id, false, ":status", "103")
			_ = f.WriteRSTStream(id, http2.ErrCodeHTTP11Required)
		}, false, "", "HTTP_1_1_REQUIRED"},
		{"after the head", func(f *h2Fake, id uint32) {
			ok(f, id)
			_ = f.WriteRSTStream(id, http2.ErrCodeInternal)
		}, true, "", "INTERNAL_ERROR"},
		{"after content", func(f *h2Fake, id uint32) {
			ok(f, id)
			_ = f.WriteData(id, false, []byte("hello"))
			_ = f.WriteRSTStream(id, http2.ErrCodeNo)
		}, true, "hello", "NO_ERROR"},
		{"go away before the request", func(f *h2Fake, id uint32) { _ = f.WriteGoAway(id-1, http2.ErrCodeNo, nil) }, false, "", "GOAWAY"},
		{"end of the connection", func(f *h2Fake, id uint32) {
			ok(f, id)
			_ = f.WriteData(id, false, []byte("hello"))
			_ = f.conn.Close()
		}, true, "hello", "connection closed"},
		{"end of the connection within a frame", func(f *h2Fake, id uint32) {
			ok(f, id)
			_, _ = f.conn.Write([]byte{0, 0, 9, 0, 1, 0, 0, 0, byte(id), 'h'})
			_ = f.conn.Close()
		}, true, "", "unexpected EOF"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newH2Fake(t, func(f *h2Fake) {
				_ = f.WriteSettings()
				id, _, _, _ := f.request()
				tt.play(f, id)
				f.drain()
			})
			x := s.begin(t, t.Context())
			var resp protocol.Response
			var err error
			for resp.Status < 200 && err == nil {
				err = x.ReadResponse(&resp)
			}
			if head := err == nil; head != tt.head {
				t.Fatalf("head: %v, want %v", err, tt.head)
			}
			if tt.head {
				var b []byte
				b, err = io.ReadAll(x)
				if string(b) != tt.content || !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("content %q, %v, want %q", b, err, tt.content)
				}
			}
			wantReason(t, err, protocol.ReasonUpstreamProtocol)
			if !strings.Contains(err.Error(), tt.err) {
				t.Errorf("error %v does not say %q", err, tt.err)
			}
			x.Release(true)
			if n := s.client.pool.sessions["s1"].places; n != 0 {
				t.Errorf("%d connections kept", n)
			}
		})
	}
}

// TestH2ResetWhileUploading ends the upload and leaves the response.
func TestH2ResetWhileUploading(t *testing.T) {
	for _, code := range []http2.ErrCode{http2.ErrCodeNo, http2.ErrCodeCancel} {
		s := newH2Fake(t, func(f *h2Fake) {
			_ = f.WriteSettings()
			id, _, _, _ := f.request()
			ok(f, id)
			_ = f.WriteData(id, true, []byte("enough"))
			_ = f.WriteRSTStream(id, code)
			f.drain()
		})
		x, err := s.client.Open(t.Context(), s.key)
		if err != nil {
			t.Fatal(err)
		}
		if err := x.WriteHead(&protocol.Request{Method: "POST", Path: "/"}, nil, -1); err != nil {
			t.Fatal(err)
		}
		for p := make([]byte, 10_000); err == nil; {
			_, err = x.Write(p)
		}
		if !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), code.String()) {
			t.Errorf("upload ended with %v", err)
		}
		if res, err := receive(x); err != nil || res.Content != "enough" {
			t.Errorf("response %q, %v", res.Content, err)
		}
		x.Release(true)
		if n := s.client.pool.sessions["s1"].places; n != 0 {
			t.Errorf("%d connections kept", n)
		}
	}
}

// TestH2Reuse has servers say something between two exchanges. Only some of it ends the connection.
func TestH2Reuse(t *testing.T) {
	for _, tt := range []struct {
		name string
		say  func(f *h2Fake)
		want int64 // connections for two exchanges
	}{
		{"nothing", func(*h2Fake) {}, 1},
		{"ping", func(f *h2Fake) { _ = f.WritePing(false, [8]byte{1}) }, 1},
		{"settings", func(f *h2Fake) {
			_ = f.WriteSettings(window(5), http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1})
		}, 1},
		{"late window update and reset", func(f *h2Fake) {
			_ = f.WriteWindowUpdate(1, 5)
			_ = f.WriteRSTStream(1, http2.ErrCodeNo)
		}, 1},
		{"no streams", func(f *h2Fake) { _ = f.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 0}) }, 2},
		{"go away", func(f *h2Fake) { _ = f.WriteGoAway(1<<31-1, http2.ErrCodeNo, nil) }, 2},
		{"content", func(f *h2Fake) { _ = f.WriteData(1, false, []byte("x")) }, 2},
		{"head", func(f *h2Fake) { f.headers(1, true, ":status", "200") }, 2},
		{"trailers", func(f *h2Fake) { f.headers(1, true, "x-sum", "2") }, 2},
		{"head to come", func(f *h2Fake) { f.headers(3, true, ":status", "200") }, 2},
		{"close", func(f *h2Fake) { _ = f.conn.Close() }, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			said := make(chan struct{}, 2)
			pong, acks := false, 0
			s := newH2Fake(t, func(f *h2Fake) {
				_ = f.WriteSettings()
				for {
					id, _, _, err := f.request()
					if err != nil {
						return
					}
					serve(f, id)
					if id == 1 {
						tt.say(f)
						_ = f.WritePing(false, [8]byte{9})
					}
					for { // both a ping's answer and the end of the connection mean: they know
						fr, err := f.ReadFrame()
						if ack, ok := fr.(*http2.SettingsFrame); ok && ack.IsAck() {
							f.acks++
						}
						if p, ok := fr.(*http2.PingFrame); ok && p.Data[0] == 1 {
							pong = true
						} else if ok && p.Data[0] == 9 || err != nil || id > 1 {
							if id == 1 { // the test looks as soon as it has the second answer
								acks = f.acks
							}
							said <- struct{}{}
							break
						}
					}
				}
			})
			s.mustDo(t, get("/"), "")
			<-said
			time.Sleep(time.Millisecond)
			if res := s.mustDo(t, &protocol.Request{Method: "POST", Path: "/"}, "123456"[:5]); res.Content != "x" {
				t.Errorf("content %q", res.Content)
			}
			s.wantConns(t, tt.want)
			if tt.name == "ping" && !pong {
				t.Error("no answer to the ping")
			}
			if tt.name == "settings" && acks != 2 {
				t.Errorf("%d answers to the settings", acks)
			}
		})
	}
}

// TestH2GoneAway keeps no connection that takes no further request.
func TestH2GoneAway(t *testing.T) {
	s := newH2Fake(t, func(f *h2Fake) {
		_ = f.WriteSettings()
		id, _, _, _ := f.request()
		_ = f.WriteGoAway(id, http2.ErrCodeNo, nil)
		serve(f, id)
		f.drain()
	})
	if res := s.mustDo(t, get("/"), ""); res.Content != "x" {
		t.Errorf("content %q", res.Content)
	}
	if n := s.client.pool.sessions["s1"].places; n != 0 {
		t.Errorf("%d connections kept", n)
	}
}

// TestH2Close waits for those who read.
func TestH2Close(t *testing.T) {
	for range 50 {
		s := newH2Fake(t, func(f *h2Fake) { f.drain() })
		x := s.begin(t, t.Context())
		_ = s.client.Close()
		if x.conn.h2.usable() == nil {
			t.Fatal("a reader is still there")
		}
		x.Release(true)
	}
}

// TestH2Pool makes many exchanges over few connections, and keeps keys apart.
func TestH2Pool(t *testing.T) {
	s := newH2Server(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }))
	for range 100 {
		s.mustDo(t, &protocol.Request{Method: "POST", Path: "/"}, "x")
	}
	s.wantConns(t, 1)
	x, y := s.begin(t, t.Context()), s.begin(t, t.Context())
	if x.conn == y.conn || !x.Reused() || y.Reused() {
		t.Error("two exchanges share a connection")
	}
	x.Release(false)
	y.Release(false)
	s.wantConns(t, 2)
	s.mustDo(t, get("/"), "")
	s.key.HTTP2 = false
	s.mustDo(t, get("/"), "")
	s.key.Session = "s2"
	s.mustDo(t, get("/"), "")
	s.wantConns(t, 5)
}

// TestH2Deadlines looks at the deadlines of each phase; a read is always under way.
func TestH2Deadlines(t *testing.T) {
	next := make(chan struct{})
	s := newH2Fake(t, func(f *h2Fake) {
		_ = f.WriteSettings()
		for {
			id, end, _, err := f.request()
			for !end && err == nil {
				_, end, err = f.data()
			}
			<-next
			ok(f, id)
			<-next
			_ = f.WriteData(id, true, []byte("x"))
			if err != nil {
				return
			}
		}
	})
	defer close(next)
	for range 2 {
		x, err := s.client.Open(t.Context(), s.key)
		if err != nil {
			t.Fatal(err)
		}
		near := func(what string, want time.Duration) {
			t.Helper()
			x.conn.mu.Lock()
			defer x.conn.mu.Unlock()
			if d := time.Until(x.conn.readBy) - want; d > 0 || d < -5*time.Second {
				t.Errorf("%s: deadline in %v, want %v", what, time.Until(x.conn.readBy), want)
			}
		}
		if err := errors.Join(x.WriteHead(&protocol.Request{Method: "POST", Path: "/"}, nil, 1), x.Flush()); err != nil {
			t.Fatal(err)
		}
		x.conn.mu.Lock()
		if !x.conn.readBy.IsZero() {
			t.Errorf("deadline %v while the request is sent, want none", x.conn.readBy)
		}
		x.conn.mu.Unlock()
		_, _ = x.Write([]byte("x"))
		if err := x.CloseWrite(nil); err != nil {
			t.Fatal(err)
		}
		near("head", protocol.ResponseHeadTimeout)
		next <- struct{}{}
		if err := x.ReadResponse(new(protocol.Response)); err != nil {
			t.Fatal(err)
		}
		near("content", protocol.IdleTimeout)
		next <- struct{}{}
		if _, err := io.ReadAll(x); err != nil {
			t.Fatal(err)
		}
		x.Release(true)
	}
	s.wantConns(t, 1)
}

// TestH2Timeout lets the deadline of the head pass. Where the response came and nobody took it, that is
// not the server's fault.
func TestH2Timeout(t *testing.T) {
	for _, answered := range []bool{false, true} {
		next := make(chan struct{})
		s := newH2Fake(t, func(f *h2Fake) {
			_ = f.WriteSettings()
			id, _, _, _ := f.request()
			if answered {
				ok(f, id)
				<-next
				_ = f.WriteData(id, true, []byte("late"))
			}
			f.drain()
		})
		x := s.begin(t, t.Context())
		if answered {
			for !x.conn.h2.unread() {
				time.Sleep(time.Millisecond)
			}
		}
		_ = x.conn.rw.SetReadDeadline(time.Now())
		time.Sleep(20 * time.Millisecond)
		if answered {
			close(next)
			if res, err := receive(x); err != nil || res.Content != "late" {
				t.Errorf("content %q, %v", res.Content, err)
			}
		} else {
			wantReason(t, x.ReadResponse(new(protocol.Response)), protocol.ReasonUpstreamTimeout)
		}
		x.Release(true)
	}
}

// TestH2CloseSession cuts what is in use and what is idle.
func TestH2CloseSession(t *testing.T) {
	var closed atomic.Int64
	s := newH2Fake(t, func(f *h2Fake) {
		_ = f.WriteSettings()
		if id, _, _, _ := f.request(); id != 0 {
			serve(f, id)
		}
		_, _, _, _ = f.request()
		f.drain()
		closed.Add(1)
	})
	s.mustDo(t, get("/"), "")
	x := s.begin(t, t.Context())
	s.client.CloseSession("s1")
	wantReason(t, x.ReadResponse(new(protocol.Response)), protocol.ReasonSessionEnded)
	x.Release(true)
	for closed.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
}
