package redact

import (
	"bytes"
	"strings"
	"testing"
	"unsafe"
)

// TestMatcherSize holds what the tables of 1, 8 and 50 secrets of 40 characters take.
func TestMatcherSize(t *testing.T) {
	tests := []struct{ secrets, most int }{{1, 24 << 10}, {8, 160 << 10}, {50, 640 << 10}}
	for _, tt := range tests {
		secrets, _ := secretsOf(tt.secrets, 40)
		m := NewMatcher(secrets)
		size := cap(m.texts) + cap(m.streams)*int(unsafe.Sizeof(stream{})) + cap(m.grams.filter)*8 +
			cap(m.grams.entries)*int(unsafe.Sizeof(entry{})) + cap(m.escapes)*int(unsafe.Sizeof(hunter{})) + int(unsafe.Sizeof(*m))
		if size > tt.most {
			t.Errorf("%d secrets: %d bytes, want at most %d", tt.secrets, size, tt.most)
		}
		t.Logf("%d secrets: %d KiB", tt.secrets, size>>10)
	}
}

// TestRepetitions holds what a value that repeats itself costs: entries for one period, not for each.
func TestRepetitions(t *testing.T) {
	const period = "s3cret-k!y"
	m := NewMatcher([]Secret{newSecret(strings.Repeat(period, 1000))})
	used := 0
	for _, e := range m.grams.entries {
		if e.at != 0 {
			used++
		}
	}
	if used == 0 || used > 100*len(period) {
		t.Errorf("%d entries", used)
	}
	out := []byte(strings.Repeat(period, 100) + " ")
	if m.Scanner().Mask(out); string(out) != strings.Repeat("*", 100*len(period))+" " {
		t.Errorf("%q", out)
	}
}

// TestWipe looks for what a Matcher and a Scanner keep of a secret.
func TestWipe(t *testing.T) {
	m := NewMatcher([]Secret{newSecret(token), newSecret("abc123")})
	s := m.Scanner()
	s.Mask([]byte(every(token, `\u%04x`) + token))
	past, room := &s.past, s.undone.room
	if !bytes.Contains(m.texts, []byte(token)) || !bytes.Contains(past[:], []byte(token)) || !bytes.Contains(room[:], []byte(token)) {
		t.Fatal("they never had it")
	}
	s.Close()
	m.Wipe()
	for name, b := range map[string][]byte{"texts": m.texts, "past": past[:], "undone": room[:], "weak": m.weak[0]} {
		if len(bytes.Trim(b, "\x00")) > 0 {
			t.Errorf("%s: %q", name, b)
		}
	}
	for _, e := range m.grams.entries {
		if e != (entry{}) {
			t.Fatalf("entry %v", e)
		}
	}
}
