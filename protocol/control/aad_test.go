package control

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func sealedMeta() Meta {
	return Meta{
		Agent: "a", Name: "K", Version: 3, Audience: []string{"https://x.example"},
		Inject: Injector{Scheme: SchemeHeader, Fields: []FieldTemplate{{"X-A", "{K}"}}, Params: []Param{{"n", "v"}}},
		Expose: ExposeNone, Rotation: RotationFollow, Preset: "p", Created: time.Unix(1, 2).UTC(), Weak: true,
		Expires: time.Unix(3, 4).UTC(), Replace: []Place{PlaceForm}, By: "me",
	}
}

// The encoding is fixed: values that were sealed by an older build must open.
func TestAssociatedDataGolden(t *testing.T) {
	const want = "02" + "026964" + "0161" + "014b" + "03" + "01" + "1168747470733a2f2f782e6578616d706c65" +
		"06686561646572" + "01" + "03582d41" + "037b4b7d" + "01" + "016e" + "0176" + "00" + "06666f6c6c6f77" + "0170" +
		"026d65" + "01" + "04666f726d" + "000000003b9aca02" + "00000000b2d05e04" + "01"
	if got := hex.EncodeToString(AssociatedData(sealedMeta(), "id")); got != want {
		t.Errorf("encoding\n%s, want\n%s", got, want)
	}
}

// A secret that is kept elsewhere is sealed in a format of its own; all others are as they were.
func TestAssociatedDataSourced(t *testing.T) {
	m := Meta{Agent: "a", Name: "K", Version: 1, By: "me", Source: "vault:x#y", Created: time.Unix(1, 2).UTC()}
	const want = "03" + "026964" + "0161" + "014b" + "01" + "00" + "00" + "00" + "00" + "00" + "00" + "00" + "026d65" + "097661756c743a782379" +
		"00" + "000000003b9aca02" + "0000000000000000" + "00"
	b := AssociatedData(m, "id")
	if got := hex.EncodeToString(b); got != want {
		t.Errorf("encoding\n%s, want\n%s", got, want)
	}
	got, id, err := DecodeAssociatedData(b)
	if diff := cmp.Diff(m, got); diff != "" || id != "id" || err != nil {
		t.Errorf("%v, %q, %s", err, id, diff)
	}
	m.Source = ""
	b = AssociatedData(m, "id")
	b[0] = aadSourced // an empty source has another encoding
	b = append(b[:len(b)-18:len(b)-18], append([]byte{0}, b[len(b)-18:]...)...)
	if _, _, err := DecodeAssociatedData(b); err == nil {
		t.Error("a second encoding is read")
	}
}

// A change of any member, or of where one ends, changes the encoding.
func TestAssociatedDataDistinct(t *testing.T) {
	seen := map[string]int{}
	changes := []func(*Meta){
		func(m *Meta) {},
		func(m *Meta) { m.Agent = "b" },
		func(m *Meta) { m.Agent, m.Name = "aK", "" },
		func(m *Meta) { m.Name = "L" },
		func(m *Meta) { m.Version = 4 },
		func(m *Meta) { m.Audience = nil },
		func(m *Meta) { m.Audience = []string{"https://x.exampl", "e"} },
		func(m *Meta) { m.Audience = []string{"https://evil.example"} },
		func(m *Meta) { m.Inject.Scheme = SchemeBearer },
		func(m *Meta) { m.Inject.Fields = nil },
		func(m *Meta) { m.Inject.Fields = []FieldTemplate{{"X-A{", "K}"}} },
		func(m *Meta) { m.Inject.Params = nil },
		func(m *Meta) { m.Inject.Params = []Param{{"nv", ""}} },
		func(m *Meta) { m.Inject.Params[0].Value = "w" },
		func(m *Meta) { m.Expose = ExposeEnv },
		func(m *Meta) { m.Rotation = RotationPin },
		func(m *Meta) { m.Preset = "" },
		func(m *Meta) { m.Created = m.Created.Add(1) },
		func(m *Meta) { m.Weak = false },
		func(m *Meta) { m.Expires = time.Time{} },
		func(m *Meta) { m.By = "" },
		func(m *Meta) { m.Replace = nil },
		func(m *Meta) { m.Replace = []Place{PlaceJSON} },
		func(m *Meta) { m.Overlap = true },
		func(m *Meta) { m.Source = "vault:x" },
		func(m *Meta) { m.Source = "vault:y" },
		func(m *Meta) { m.By, m.Source = "", "me" },
	}
	for i, change := range changes {
		m := sealedMeta()
		change(&m)
		key := string(AssociatedData(m, "id"))
		if j, ok := seen[key]; ok {
			t.Errorf("changes %d and %d encode alike", i, j)
		}
		seen[key] = i
	}
	if string(AssociatedData(sealedMeta(), "id")) == string(AssociatedData(sealedMeta(), "ie")) {
		t.Error("the key's id is not in it")
	}
}

func FuzzDecodeAssociatedData(f *testing.F) {
	f.Add(AssociatedData(sealedMeta(), "id"))
	f.Add(AssociatedData(Meta{}, ""))
	f.Add([]byte{aadFormat})
	sourced := sealedMeta()
	sourced.Source = "vault:secret/data/app#key"
	f.Add(AssociatedData(sourced, "id"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, id, err := DecodeAssociatedData(b)
		if err != nil {
			if id != "" || !cmp.Equal(m, Meta{}) {
				t.Error("something beside an error")
			}
			return
		}
		if again := AssociatedData(m, id); !bytes.Equal(again, b) {
			t.Errorf("%x reads as %x", b, again)
		}
	})
}

// What was described reads back as it was, and nothing shorter or longer reads at all.
func TestDecodeAssociatedData(t *testing.T) {
	largest := headerMeta()
	largest.Agent, largest.Name = strings.Repeat("a", MaxAgent), strings.Repeat("K", MaxKey)
	largest.Audience, largest.Inject.Fields = nil, nil
	for i := range MaxAudience {
		label := strings.Repeat("a", 61)
		largest.Audience = append(largest.Audience, fmt.Sprintf("https://%s.%s.%s.%02d.example:65535", label, label, label, i))
	}
	for i := range MaxTemplates {
		hole := "{" + largest.Name + "}"
		largest.Inject.Fields = append(largest.Inject.Fields, FieldTemplate{fmt.Sprintf("x-%d", i), strings.Repeat("v", MaxTemplate-len(hole)) + hole})
	}
	if err := CheckMeta(largest); err != nil {
		t.Fatal(err) // else it proves nothing about what is accepted
	}
	for _, m := range []Meta{sealedMeta(), headerMeta(), bearerMeta(), exposedMeta(), largest, {}} {
		b := AssociatedData(m, "0123456789abcdef")
		got, id, err := DecodeAssociatedData(b)
		if err != nil || id != "0123456789abcdef" || !cmp.Equal(m, got) {
			t.Errorf("%s: id %q, %v\n%s", m.Name, id, err, cmp.Diff(m, got))
		}
		for n := range min(len(b), 200) {
			if _, _, err := DecodeAssociatedData(b[:n]); err == nil {
				t.Fatalf("%s: reads when cut to %d of %d bytes", m.Name, n, len(b))
			}
		}
		if _, _, err := DecodeAssociatedData(append(b, 0)); err == nil {
			t.Errorf("%s: reads with a byte after its end", m.Name)
		}
	}
}
