package control

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func FuzzDecodeSealed(f *testing.F) {
	b, err := EncodeSealed(SealedSecret{Meta: sealedMeta(), KeyID: "id", Sealed: []byte("sealed")})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{sealedFormat, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := DecodeSealed(b)
		if err != nil {
			if !cmp.Equal(s, SealedSecret{}) {
				t.Error("a secret beside an error")
			}
			return
		}
		again, err := EncodeSealed(s)
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("%x reads as %x, %v", b, again, err)
		}
		if m, id, err := DecodeSealedMeta(b); err != nil || id != s.KeyID || !cmp.Equal(m, s.Meta) {
			t.Errorf("%+v, %q, %v", m, id, err)
		}
	})
}

// What is longer than what is read back is not written.
func TestEncodeSealedBounds(t *testing.T) {
	if _, err := EncodeSealed(SealedSecret{Meta: sealedMeta(), Sealed: make([]byte, MaxSealed)}); err != nil {
		t.Error(err)
	}
	if _, err := EncodeSealed(SealedSecret{Meta: sealedMeta(), Sealed: make([]byte, MaxSealed+1)}); err == nil {
		t.Error("a sealed value over MaxSealed is written")
	}
	long := sealedMeta()
	long.Agent = string(make([]byte, maxString+1))
	if _, err := EncodeSealed(SealedSecret{Meta: long}); err == nil {
		t.Error("a name over maxString is written")
	}
}
