package keyring

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"torno.internal/protocol/seal"
	"torno.internal/protocol/secret"
)

func texts(t testing.TB, shares []secret.Value) []string {
	t.Helper()
	out := make([]string, len(shares))
	for i, s := range shares {
		out[i] = string(s.AppendTo(nil))
	}
	return out
}

func values(texts ...string) []secret.Value {
	out := make([]secret.Value, len(texts))
	for i, s := range texts {
		out[i] = secret.New([]byte(s))
	}
	return out
}

func split(t testing.TB, shares, threshold int) (seal.PrivateKey, []string) {
	t.Helper()
	k, err := seal.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	s, err := Split(k, shares, threshold)
	if err != nil {
		t.Fatal(err)
	}
	return k, texts(t, s)
}

// Every choice of threshold shares recovers the key, in any order; one less never does.
func TestSplitRecover(t *testing.T) {
	const n, threshold = 5, 3
	k, shares := split(t, n, threshold)
	enough, few := 0, 0
	for chosen := range 1 << n {
		var some []string
		for i := range n {
			if chosen>>i&1 == 1 {
				some = append([]string{shares[i]}, some...)
			}
		}
		got, err := Recover(values(some...))
		if len(some) >= threshold {
			enough++
			if err != nil || got.Public().ID() != k.Public().ID() {
				t.Errorf("%05b: %v", chosen, err)
			}
			continue
		}
		few++
		if err == nil {
			t.Errorf("%05b: recovered from %d shares", chosen, len(some))
		}
	}
	if enough != 16 || few != 16 {
		t.Errorf("%d choices are enough, %d too few: want 16 and 16", enough, few)
	}
}

// People copy shares by hand: case, line breaks, spaces and missing hyphens do not matter, and a wrong letter
// is noticed, each one.
func TestShareText(t *testing.T) {
	k, shares := split(t, 2, 2)
	copied := strings.ToUpper(strings.ReplaceAll(shares[0], "-", " - ")) + "\r\n"
	copied = copied[:40] + "\n\t" + copied[40:]
	if got, err := Recover(values(copied, strings.Replace(shares[1][len(sharePrefix):], "-", "", 9))); err == nil {
		t.Errorf("without its prefix: %v", got)
	}
	bare := sharePrefix + strings.ReplaceAll(shares[1][len(sharePrefix):], "-", "")
	got, err := Recover(values(copied, bare))
	if err != nil || got.Public().ID() != k.Public().ID() {
		t.Fatalf("copied by hand: %v", err)
	}
	wrong := 0
	for i := range shares[0] {
		b := []byte(shares[0])
		if b[i] == '-' && i > len(sharePrefix) {
			continue
		}
		if b[i] == 'q' {
			b[i] = 'r'
		} else {
			b[i] = 'q'
		}
		if _, err := decodeShare(b); err == nil {
			t.Errorf("letter %d is wrong, and it reads", i)
		}
		wrong++
	}
	if wrong < 100 {
		t.Errorf("%d letters tried", wrong)
	}
	for n := range shares[0] {
		if _, err := decodeShare([]byte(shares[0][:n])); err == nil {
			t.Fatalf("cut to %d letters, and it reads", n)
		}
	}
}

// Shares of different splits, one share twice, and too few say what is wrong.
func TestRecoverRefuses(t *testing.T) {
	_, a := split(t, 3, 2)
	_, b := split(t, 3, 2)
	for name, c := range map[string]struct {
		shares []string
		want   string
	}{
		"mixed":     {[]string{a[0], b[1]}, "another set"},
		"one twice": {[]string{a[0], a[0]}, "1 different shares, 2 are needed"},
		"too few":   {[]string{a[0]}, "2 are needed"},
		"none":      {nil, "no shares"},
		"no share":  {[]string{a[0], "hello"}, "share 2"},
	} {
		if _, err := Recover(values(c.shares...)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	for _, c := range [][2]int{{1, 1}, {2, 1}, {2, 3}, {65, 2}, {0, 0}, {-1, 2}} {
		k, err := seal.GenerateKey()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Split(k, c[0], c[1]); err == nil {
			t.Errorf("%d shares, %d needed: split", c[0], c[1])
		}
	}
}

// A share, even all but one of them, has no byte run of the key in it.
func TestSharesHideTheKey(t *testing.T) {
	k, shares := split(t, 3, 3)
	seed := k.Bytes().AppendTo(nil)
	for i, text := range shares {
		s, err := decodeShare([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		all := append(append(s.bound(), s.scalar[:]...), s.wrapped[:]...)
		for n := range len(seed) - 4 {
			if bytes.Contains(all, seed[n:n+4]) {
				t.Errorf("share %d holds bytes %d to %d of the key", i, n, n+4)
			}
		}
	}
}

// What is recovered is what the key file then holds.
func TestRestore(t *testing.T) {
	k, shares := split(t, 2, 2)
	got, err := Recover(values(shares...))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), FileName)
	if _, err := Restore(path, got); err != nil {
		t.Fatal(err)
	}
	r, err := Open(path)
	if err != nil || r.Keys()[0].Public().ID() != k.Public().ID() {
		t.Errorf("%v", err)
	}
}

func FuzzDecodeShare(f *testing.F) {
	_, shares := split(f, 2, 2)
	f.Add([]byte(shares[0]))
	f.Add([]byte(sharePrefix))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := decodeShare(b)
		if err != nil {
			if s != (share{}) {
				t.Error("a share beside an error")
			}
			return
		}
		again, err := decodeShare(s.encode())
		if err != nil || again != s {
			t.Errorf("%q reads as another share, %v", b, err)
		}
	})
}
