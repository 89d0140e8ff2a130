package credential

import (
	"errors"
	"fmt"
	"testing"

	"torno.internal/protocol/secret"
)

// A secret that is not there any more where it is kept is used no longer, however many versions it has had.
func TestMissingAfterManyVersions(t *testing.T) {
	one := func(i int) Secret {
		s := Secret{Meta: meta("A", "https://a.example"), Value: secret.New(fmt.Appendf(nil, "value-%d-0123456789abcdef", i))}
		s.Meta.Source, s.Generation = "shelf:ref", uint64(i+1)
		return s
	}
	set, err := NewSet([]Secret{one(0)})
	if err != nil {
		t.Fatal(err)
	}
	for i := 1; i < MaxVersions; i++ {
		if set, err = set.Follow(one(i)); err != nil {
			t.Fatal(i, err)
		}
	}
	if _, err := set.Follow(one(MaxVersions)); err == nil {
		t.Error("a version too many was taken up")
	}
	gone := one(MaxVersions)
	gone.Value, gone.Missing, gone.Generation = secret.Value{}, errors.New("gone"), 0
	set, err = set.Follow(gone)
	if err != nil {
		t.Fatalf("it stays in use: %v", err)
	}
	if c, _ := set.Current("A"); c.Missing == nil {
		t.Error("it stays in use")
	}
	if _, err := set.Follow(one(MaxVersions + 1)); err == nil {
		t.Error("a version too many was taken up after it was missing")
	}
}
