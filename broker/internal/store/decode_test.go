package store

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func FuzzDecodeManifest(f *testing.F) {
	m := &manifest{keyID: "0123456789abcdef", commit: 7, prev: digest{1}, floor: 300, changes: []Change{{EventSet, "a", "K", 3}},
		pages: map[string]digest{"a/a": {2}, "a/b": {3}}}
	mac := &[32]byte{1}
	b := m.encode(mac)
	f.Add(b[:len(b)-32])
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseManifest(b)
		if err != nil {
			if m != nil {
				t.Error("a manifest beside an error")
			}
			return
		}
		if again := m.encode(mac); !bytes.Equal(again[:len(again)-32], b) {
			t.Errorf("%x reads as %x", b, again)
		}
		if id, err := manifestKey(b); err != nil || id != m.keyID {
			t.Errorf("key id %q, %v", id, err)
		}
	})
}

func FuzzDecodePage(f *testing.F) {
	p := &page{entries: []entry{
		{name: "K", state: statePresent, changed: 5, first: 2, digests: []digest{{1}, {2}}},
		{name: "L", state: stateDeleted, first: 4}, {name: trustedName, state: stateRolledBack, first: 1, digests: []digest{{9}}},
	}}
	f.Add(p.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := decodePage(b)
		if err != nil {
			if p != nil {
				t.Error("a page beside an error")
			}
			return
		}
		if again := p.encode(); !bytes.Equal(again, b) {
			t.Errorf("%x reads as %x", b, again)
		}
	})
}

func FuzzDecodeCounts(f *testing.F) {
	f.Add(encodeCounts([]count{{"K", 1, 7, 8}, {"K", 2, 1, -1}, {"L", 300, 1 << 40, 9}}))
	f.Add([]byte{countsFormat, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		all, err := decodeCounts(b)
		if err != nil {
			if all != nil {
				t.Error("counts beside an error")
			}
			return
		}
		if again := encodeCounts(all); !bytes.Equal(again, b) {
			t.Errorf("%x reads as %x", b, again)
		}
		if _, err := decodePage(b); err == nil {
			t.Error("it reads as a list as well")
		}
	})
}

// A manifest is signed: no other key and no other ledger reads it.
func TestManifestMAC(t *testing.T) {
	m := &manifest{ledger: "agents", keyID: "0123456789abcdef", commit: 1, pages: map[string]digest{}}
	mac := &[32]byte{1}
	b := m.encode(mac)
	if got, err := decodeManifest(b, "agents", mac); err != nil || !cmp.Equal(got, m, cmp.AllowUnexported(manifest{})) {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := decodeManifest(b, "sessions", mac); err == nil {
		t.Error("it reads as another ledger's")
	}
	if _, err := decodeManifest(b, "agents", &[32]byte{2}); err == nil {
		t.Error("it reads with another key")
	}
	for i := range b {
		flipped := bytes.Clone(b)
		flipped[i] ^= 1
		if _, err := decodeManifest(flipped, "agents", mac); err == nil {
			t.Fatalf("it reads with byte %d changed", i)
		}
	}
}

// The store's format is what the comments say: what a hex editor finds.
func TestVersionKey(t *testing.T) {
	want := append([]byte("a\x00K\x00"), binary.BigEndian.AppendUint64(nil, 7)...)
	if got := versionKey("a", "K", 7); !bytes.Equal(got, want) {
		t.Errorf("%q", got)
	}
}
