package postgres

import (
	"bytes"
	"encoding/binary"
	"io"
	"strings"
	"testing"

	"torno.internal/protocol"
)

func startup(code uint32, body string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(StartupHead+len(body)))
	return append(binary.BigEndian.AppendUint32(b, code), body...)
}

func TestReadStartup(t *testing.T) {
	for name, c := range map[string]struct {
		said []byte
		ok   bool
	}{
		"ssl":       {startup(CodeSSL, ""), true},
		"startup":   {startup(3<<16, "user\x00app\x00\x00"), true},
		"longest":   {startup(3<<16, strings.Repeat("x", MaxStartup-StartupHead)), true},
		"too long":  {startup(3<<16, strings.Repeat("x", MaxStartup-StartupHead+1)), false},
		"too short": {[]byte{0, 0, 0, 7, 0, 3, 0, 0}, false},
		"cut":       {startup(3<<16, "user")[:10], false},
		"nothing":   {nil, false},
		"HTTP":      {[]byte("GET / HTTP/1.1\r\n\r\n"), false},
	} {
		r := bytes.NewReader(append(bytes.Clone(c.said), "more"...))
		if !c.ok {
			r = bytes.NewReader(c.said)
		}
		_, _, err := ReadStartup(r)
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
		if left, _ := io.ReadAll(r); c.ok && string(left) != "more" {
			t.Errorf("%s: %q is left", name, left)
		}
	}
}

func TestBeginsStartup(t *testing.T) {
	for text, want := range map[string]bool{
		string(startup(CodeSSL, "")): true, string(startup(CodeGSS, "")): true, string(startup(CodeCancel, "12345678")): true,
		string(startup(3<<16, "user")): true, string(startup(3<<16|2, "user")): true,
		string(startup(2<<16, "user")): false, "\x00\x00\x00\x08\x04\xd2\x16": false, "GET / HT": false, "SSH-2.0-x": false, "\xff\xff\xff\xff\x00\x03\x00\x00": false,
	} {
		if got := BeginsStartup([]byte(text)); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

// A refusal says its code and what to do about it, and is one message.
func TestAppendRefusal(t *testing.T) {
	for r := protocol.ReasonNone + 1; !strings.HasPrefix(r.String(), "reason("); r++ {
		b := AppendRefusal(nil, r)
		fields := strings.Split(string(b[5:]), "\x00")
		if b[0] != 'E' || int(binary.BigEndian.Uint32(b[1:])) != len(b)-1 || len(fields) != 7 || len(fields[2]) != 6 || fields[3] != "Mtorno: "+r.String() || fields[4] != "H"+r.Advice() {
			t.Errorf("%v: %q", r, b)
		}
	}
}

func FuzzReadStartup(f *testing.F) {
	f.Add(startup(CodeSSL, ""))
	f.Add(startup(3<<16, "user\x00app\x00\x00"))
	f.Fuzz(func(t *testing.T, said []byte) {
		code, body, err := ReadStartup(bytes.NewReader(said))
		if err != nil {
			return
		}
		if again := startup(code, string(body)); !bytes.HasPrefix(said, again) {
			t.Fatalf("%x is read as %x", said, again)
		}
	})
}
