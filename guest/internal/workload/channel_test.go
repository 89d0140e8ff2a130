package workload

import (
	"bytes"
	"strings"
	"testing"

	"torno.internal/protocol"
)

func TestReadEvents(t *testing.T) {
	for _, test := range []struct {
		name, lines string
		want        int
		ok          bool
	}{
		{"none", "", 0, true},
		{"two", `{"type":"signal","signal":"INT"}` + "\n" + `{"type":"winsize","rows":1,"cols":2}` + "\n", 2, true},
		{"of the future", `{"type":"new","more":[1,2]}` + "\n", 1, true},
		{"cut", `{"type":"sig`, 0, false},
		{"not an object", `"stop"`, 0, false},
		{"rows too large", `{"type":"winsize","rows":70000}`, 0, false},
		{"long line", strings.Repeat(" ", maxEvent+1), 0, false},
		{"many lines", strings.Repeat(`{"type":"stop"}`+"\n", 1000), 1000, true},
	} {
		got := 0
		err := readEvents(strings.NewReader(test.lines), func(protocol.RunEvent) { got++ })
		if got != test.want || (err == nil) != test.ok {
			t.Errorf("%s: %d events, %v, want %d, ok %v", test.name, got, err, test.want, test.ok)
		}
	}
}

func FuzzReadEvents(f *testing.F) {
	f.Add([]byte(`{"type":"signal","signal":"INT"}` + "\n"))
	f.Add([]byte("{}\n{}\n[" + strings.Repeat("[", 100)))
	f.Fuzz(func(t *testing.T, data []byte) {
		events := 0
		err := readEvents(bytes.NewReader(data), func(protocol.RunEvent) { events++ })
		if events > bytes.Count(data, []byte("}")) && err == nil && !bytes.Contains(data, []byte("null")) {
			t.Fatalf("%d events from %q", events, data)
		}
	})
}
