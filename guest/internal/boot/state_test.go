package boot

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"torno.internal/protocol"
)

const testBroker = "vsock://2:618"

func testHello() *protocol.HelloResponse {
	return &protocol.HelloResponse{
		Agent: "a", Session: "s", Token: bytes.Repeat([]byte{7}, protocol.TokenSize), CA: "CA",
		Env: []string{"A=b"}, Status: json.RawMessage(`{"agent":"a"}`),
	}
}

func TestState(t *testing.T) {
	path := filepath.Join(t.TempDir(), "session")
	if hello, err := readState(path, testBroker); hello != nil || err != nil {
		t.Errorf("no state: %v, %v", hello, err)
	}
	if err := writeState(path, testBroker, testHello()); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 || int(info.Sys().(*syscall.Stat_t).Uid) != os.Geteuid() {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	hello, err := readState(path, testBroker)
	if diff := cmp.Diff(testHello(), hello); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

// Somebody else's file, or one that leads elsewhere, is no state, and nothing of what it holds is told.
func TestAttack39State(t *testing.T) {
	good, err := json.Marshal(state{testBroker, testHello()})
	if err != nil {
		t.Fatal(err)
	}
	write := func(content []byte) func(string) error {
		return func(path string) error { return os.WriteFile(path, content, 0o600) }
	}
	for name, prepare := range map[string]func(path string) error{
		"others can read it": func(path string) error { return os.WriteFile(path, good, 0o644) },
		"link": func(path string) error {
			if err := os.WriteFile(path+".real", good, 0o600); err != nil {
				return err
			}
			return os.Symlink(path+".real", path)
		},
		"fifo":           func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"directory":      func(path string) error { return os.Mkdir(path, 0o700) },
		"empty":          write(nil),
		"cut":            write(good[:len(good)/2]),
		"much too long":  write(bytes.Repeat([]byte(" "), maxState+1)),
		"other broker":   write(bytes.Replace(good, []byte("vsock://2:618"), []byte("vsock://2:617"), 1)),
		"short token":    write([]byte(`{"broker":"vsock://2:618","hello":{"token":"BwcH","ca":"x","session":"s"}}`)),
		"no hello":       write([]byte(`{"broker":"vsock://2:618"}`)),
		"not that shape": write([]byte(`["sesame"]`)),
	} {
		path := filepath.Join(t.TempDir(), "session")
		if err := prepare(path); err != nil {
			t.Fatal(err)
		}
		hello, err := readState(path, testBroker)
		if hello != nil || err == nil {
			t.Errorf("%s: %v, %v; want an error", name, hello, err)
		} else if strings.Contains(err.Error(), "BwcH") || strings.Contains(err.Error(), "sesame") {
			t.Errorf("%s: the error quotes the file: %v", name, err)
		}
	}
}

func FuzzDecodeState(f *testing.F) {
	good, err := json.Marshal(state{testBroker, testHello()})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"broker":"vsock://2:618","hello":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		hello, err := decodeState(b, testBroker)
		if (hello == nil) == (err == nil) {
			t.Fatalf("%v, %v", hello, err)
		}
		if hello != nil && (len(hello.Token) != protocol.TokenSize || hello.CA == "" || hello.Session == "") {
			t.Errorf("half a state: %+v", hello)
		}
	})
}
