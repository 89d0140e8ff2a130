package secret

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
)

const canary = "canary-7f3a9b2c"

// Nothing that prints or encodes a Value, or something that holds one, lets the bytes out.
func TestNeverPrinted(t *testing.T) {
	v := New([]byte(canary))
	held := struct {
		A Value
		P *Value
		L []Value
		M map[string]Value
	}{v, &v, []Value{v}, map[string]Value{"k": v}}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T", "%p", "%c"} {
		fmt.Fprintf(&out, verb+"\n", v)
		fmt.Fprintf(&out, verb+"\n", held)
		fmt.Fprintf(&out, verb+"\n", &held)
	}
	fmt.Fprintln(&out, fmt.Errorf("wrapped: %v", v), errors.Join(fmt.Errorf("%s", v)))
	b, err := json.Marshal(held)
	if err != nil {
		t.Fatal(err)
	}
	out.Write(b)
	if err := gob.NewEncoder(&out).Encode(v); err != nil {
		t.Fatal(err)
	}
	slog.New(slog.NewTextHandler(&out, nil)).Info("m", "v", v, "h", held)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("m", "v", v, "h", held)
	for _, form := range []string{canary, fmt.Sprintf("%x", canary), fmt.Sprint([]byte(canary))} {
		if strings.Contains(strings.ToLower(out.String()), strings.ToLower(form)) {
			t.Errorf("printed: %q", form)
		}
	}
	// The positive control: the search finds what is printed.
	_ = v.Use(func(b []byte) error { _, err := out.Write(b); return err })
	if !strings.Contains(out.String(), canary) {
		t.Error("the search finds nothing")
	}
}

func TestWipe(t *testing.T) {
	b := []byte(canary)
	v := New(b)
	w := v
	v.Wipe()
	if w.Len() != 0 || strings.Trim(string(b), "\x00") != "" {
		t.Errorf("after Wipe: %d bytes, %q", w.Len(), b)
	}
	var zero Value
	if zero.Len() != 0 || zero.AppendTo(nil) != nil || zero.Use(func(b []byte) error { return nil }) != nil {
		t.Error("the zero Value is not empty")
	}
	zero.Wipe()
}

// locked returns how much of this process's memory is locked, in KiB.
func locked(t *testing.T) (kib int) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "VmLck:")
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		t.Fatal(err)
	}
	return kib
}

// A locked value is not swapped; where the limit is too low nothing is promised, and said.
func TestLock(t *testing.T) {
	before := locked(t)
	v := New(make([]byte, 16<<10))
	if ok, now := v.Lock(), locked(t); ok != (now >= before+16) {
		t.Errorf("locked: %v; %d KiB before, %d now", ok, before, now)
	}
	if !(Value{}).Lock() {
		t.Error("there is nothing to lock in an empty value")
	}
}
