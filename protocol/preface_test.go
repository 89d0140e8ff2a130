package protocol

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func testToken() (t Token) {
	for i := range t {
		t[i] = byte(i)
	}
	return t
}

func TestPreface(t *testing.T) {
	want := Preface{Version: 0x0102, Kind: KindForward, Token: testToken()}
	wire := want.AppendTo(nil)
	if len(wire) != PrefaceSize || !bytes.HasPrefix(wire, []byte("torno\x01\x02\x03\x00\x01\x02")) {
		t.Fatalf("%d bytes %x", len(wire), wire)
	}
	r := iotest.OneByteReader(strings.NewReader(string(wire) + "rest"))
	got, err := ReadPreface(r)
	if err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	if rest, _ := io.ReadAll(r); string(rest) != "rest" {
		t.Errorf("%q is left, want what followed the preface", rest)
	}
	for n := range wire {
		want := io.ErrUnexpectedEOF
		if n == 0 {
			want = io.EOF
		}
		if p, err := ReadPreface(bytes.NewReader(wire[:n])); err != want || p != (Preface{}) {
			t.Errorf("cut to %d bytes: %+v, %v; want %v", n, p, err, want)
		}
	}
}

// TestPrefaceMagic checks that a peer that speaks something else is refused by its first bytes.
func TestPrefaceMagic(t *testing.T) {
	for _, wire := range []string{"GET / HTTP/1.1\r\n", "Torno", "\x16\x03\x01\x02\x00", "\x00\x00\x00\x00\x00", "torn0"} {
		if _, err := ReadPreface(blockAfter(wire)); !errors.Is(err, ErrMagic) {
			t.Errorf("%q: %v", wire, err)
		}
		if err := ReadPrefaceReply(blockAfter(wire)); !errors.Is(err, ErrMagic) {
			t.Errorf("reply %q: %v", wire, err)
		}
	}
}

// blockAfter returns a reader that fails the test's patience if more than the magic is wanted.
func blockAfter(s string) io.Reader {
	return io.MultiReader(strings.NewReader(s[:len(magic)]), iotest.ErrReader(errors.New("read beyond the magic")))
}

func TestPrefaceReply(t *testing.T) {
	for s := range statusCount {
		wire := PrefaceReply{Version: Version, Status: s}.AppendTo(nil)
		if len(wire) != PrefaceReplySize {
			t.Errorf("%v: %d bytes", s, len(wire))
		}
		err := ReadPrefaceReply(bytes.NewReader(wire))
		var e *StatusError
		if s == StatusOK {
			if err != nil {
				t.Errorf("%v: %v", s, err)
			}
		} else if !errors.As(err, &e) || e.Status != s || e.Version != Version {
			t.Errorf("%v: %v", s, err)
		}
		if s.String() == "" || strings.HasPrefix(s.String(), "status(") {
			t.Errorf("status %d has no text", s)
		}
		for n := 1; n < len(wire); n++ {
			if err := ReadPrefaceReply(bytes.NewReader(wire[:n])); err != io.ErrUnexpectedEOF {
				t.Errorf("cut to %d bytes: %v", n, err)
			}
		}
	}
	err := ReadPrefaceReply(bytes.NewReader(PrefaceReply{Version: 9, Status: StatusVersion}.AppendTo(nil)))
	if want := "unsupported protocol version (theirs is 9, ours is 1)"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %q", err, want)
	}
	if err := ReadPrefaceReply(strings.NewReader("torno\x00\x01\xff")); err == nil || err.Error() != "status(255)" {
		t.Errorf("a status of later versions: %v", err)
	}
}

func TestTokenIsRedacted(t *testing.T) {
	p := Preface{Token: testToken()}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if s := fmt.Sprintf(verb, p); !strings.Contains(s, "[redacted]") || strings.Contains(s, "1f") {
			t.Errorf("%s prints %s", verb, s)
		}
	}
}

func FuzzReadPreface(f *testing.F) {
	f.Add(Preface{Version: Version, Kind: KindHello}.AppendTo(nil))
	f.Add(PrefaceReply{Version: Version, Status: StatusBusy}.AppendTo(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ReadPreface(bytes.NewReader(b))
		if err == nil && !bytes.Equal(p.AppendTo(nil), b[:PrefaceSize]) {
			t.Errorf("%x became %+v", b, p)
		}
		if err != nil && p != (Preface{}) {
			t.Errorf("%+v with error %v", p, err)
		}
		err = ReadPrefaceReply(bytes.NewReader(b))
		var e *StatusError
		if errors.As(err, &e) && !bytes.Equal(PrefaceReply{e.Version, e.Status}.AppendTo(nil), b[:PrefaceReplySize]) {
			t.Errorf("%x became %v", b, e)
		}
	})
}
