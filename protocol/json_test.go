package protocol

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// nested has each kind of type that a strict body may have.
type nested struct {
	Name  string            `json:"name"`
	Inner *nested           `json:"inner,omitempty"`
	List  []nested          `json:"list"`
	Map   map[string]nested `json:"map"`
	Any   any               `json:"any"`
	Time  time.Time         `json:"time"`
	Plain int
	LeafRequest
	_   int
	Not int `json:"-"`
}

func TestDecodeStrict(t *testing.T) {
	deep := func(n int) string { return `{"any":` + strings.Repeat("[", n) + strings.Repeat("]", n) + "}" }
	tests := []struct {
		name, body, wantErr string
	}{
		{"empty object", `{}`, ""},
		{"all", `{"name":"a","inner":{"name":"b"},"list":[{"name":"c"}],"map":{"K":{"name":"d"},"k":{}},"any":{"x":1},"Plain":1,"key":"AA=="}`, ""},
		{"white space", " {\n} \t", ""},
		{"null", `{"list":null,"inner":null}`, ""},
		{"escaped key", `{"n\u0061me":"a"}`, ""},
		{"time", `{"time":"2026-11-23T21:00:00Z"}`, ""},
		{"as deep as allowed", deep(MaxJSONDepth - 1), ""},
		{"unknown", `{"nam":"a"}`, `key "nam" is unknown`},
		{"case", `{"Name":"a"}`, `key "Name" is unknown`},
		{"case of an untagged field", `{"plain":1}`, `key "plain" is unknown`},
		{"folded case", "{\"li\u017ft\":[]}", "unknown"},
		{"hidden", `{"hidden":1}`, "unknown"},
		{"left out", `{"Not":1}`, "unknown"},
		{"dash", `{"-":1}`, "unknown"},
		{"repeated", `{"name":"a","name":"a"}`, `key "name" is repeated`},
		{"repeated by escape", `{"name":"a","n\u0061me":"b"}`, "repeated"},
		{"repeated in any", `{"any":{"x":1,"x":1}}`, "repeated"},
		{"repeated in map", `{"map":{"k":{},"k":{}}}`, "repeated"},
		{"unknown inside", `{"inner":{"x":1}}`, "unknown"},
		{"unknown in list", `{"list":[{},{"x":1}]}`, "unknown"},
		{"unknown in map", `{"map":{"k":{"x":1}}}`, "unknown"},
		{"too deep", deep(MaxJSONDepth), "nested deeper"},
		{"endless", `{"any":` + strings.Repeat("[", 30<<10), "nested deeper"},
		{"too long", `{"name":"` + strings.Repeat("a", MaxChannelBody) + `"}`, "at most"},
		{"after it", `{} {}`, "after top-level value"},
		{"garbage after it", `{}x`, "after top-level value"},
		{"nothing", ``, "EOF"},
		{"cut", `{"name":"a"`, "EOF"},
		{"not JSON", `{name:1}`, "invalid character"},
		{"comma", `{"name":"a",}`, "invalid character"},
		{"comment", `{}//`, "after top-level value"},
		{"mismatch", `{"name":1}`, "cannot unmarshal"},
		{"array for an object", `[]`, "cannot unmarshal"},
		{"overflow", `{"Plain":1e400}`, "cannot unmarshal"},
		{"not UTF-8", "{\"name\":\"\xff\"}", "not UTF-8"},
		{"NUL", "{}\x00", "after top-level value"},
		{"byte order mark", "\ufeff{}", "invalid character"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := nested{Name: "before"}
			got := before
			err := DecodeStrict([]byte(tt.body), &got)
			if tt.wantErr == "" {
				if err != nil {
					t.Fatal(err)
				}
				var want nested
				if err := json.Unmarshal([]byte(tt.body), &want); err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(want, got, cmp.AllowUnexported(nested{})); d != "" {
					t.Error(d)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
				t.Errorf("error %v, want %q", err, tt.wantErr)
			}
			if d := cmp.Diff(before, got, cmp.AllowUnexported(nested{})); d != "" {
				t.Errorf("an error, and the value changed: %s", d)
			}
		})
	}
}

// FuzzDecodeStrict checks that what is accepted has one meaning: its canonical form, with every key in
// the right case and once, decodes to the same.
func FuzzDecodeStrict(f *testing.F) {
	f.Add([]byte(`{"nonce":"AA==","guest":"g"}`))
	f.Add([]byte(`{"name":"a","inner":{"name":"b"},"list":[{}],"map":{"k":{}},"any":[1,{"x":null}]}`))
	f.Add([]byte(`{"name":"a","Name":"b","name":"c"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var hello HelloRequest
		fuzzOne(t, b, &hello)
		var n nested
		fuzzOne(t, b, &n)
	})
}

func fuzzOne[T any](t *testing.T, b []byte, v *T) {
	if err := DecodeStrict(b, v); err != nil {
		return
	}
	if !json.Valid(b) {
		t.Fatalf("%q is not JSON", b)
	}
	canonical, err := json.Marshal(v)
	if err != nil {
		t.Skip() // a time that decodes and does not encode
	}
	var again T
	if err := DecodeStrict(canonical, &again); err != nil && len(canonical) <= MaxChannelBody {
		t.Fatalf("%s: %v", canonical, err)
	}
	twice, err := json.Marshal(&again)
	if err != nil || len(canonical) <= MaxChannelBody && !bytes.Equal(canonical, twice) {
		t.Fatalf("%s became %s, %v", canonical, twice, err)
	}
	var lenient T
	decoder := json.NewDecoder(bytes.NewReader(b))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&lenient); err != nil {
		t.Fatalf("encoding/json refuses it: %v", err)
	}
}
