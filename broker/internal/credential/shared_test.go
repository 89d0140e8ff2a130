package credential

import (
	"errors"
	"testing"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// A placeholder that a cloud's secrets share stands for the one that is bound to the host; where several are the host says
// nothing, and where none is it is misplaced as any other.
func TestSharedPlaceholder(t *testing.T) {
	shared, err := NewPlaceholder(SharedShape)
	if err != nil {
		t.Fatal(err)
	}
	other, err := NewPlaceholder(SharedShape)
	if err != nil {
		t.Fatal(err)
	}
	signer := func(name string, audience ...string) Secret {
		m := meta(name, audience...)
		m.Inject.Scheme = control.SchemeSigV4
		return Secret{Meta: m, Value: secret.New([]byte("AKIA:secret")), Shared: shared}
	}
	own := placeholder(t, "OWN")
	b := signer("B", "https://b.example", "https://both.example", "https://beside.example")
	b.Placeholder = own
	set, err := NewSet([]Secret{
		signer("A", "https://a.example", "https://both.example"), b,
		{Meta: meta("N", "https://n.example", "https://beside.example"), Value: secret.New([]byte("real-n"))},
	})
	if err != nil || !set.HasPlaceholders() {
		t.Fatal(err)
	}
	claim := func(key string) protocol.Fields {
		return protocol.Fields{{Name: "authorization", Value: "AWS4-HMAC-SHA256 Credential=" + key + "/20260102/eu-central-1/s3/aws4_request, SignedHeaders=host, Signature=00"}}
	}
	for _, tt := range []struct {
		host, key string
		want      string
		reason    protocol.Reason
	}{
		{"a.example", shared, "A", 0}, {"b.example", shared, "B", 0}, {"a.example", "ASIA" + shared, "A", 0}, {"b.example", own, "B", 0},
		{"both.example", shared, "", protocol.ReasonAmbiguousCredential}, {"both.example", own, "B", 0}, {"both.example", own + "/" + shared, "B", 0},
		{"beside.example", shared, "B", 0},
		{"n.example", shared, "", protocol.ReasonPlaceholder}, {"evil.example", shared, "", protocol.ReasonPlaceholder},
		{"a.example", other, "", protocol.ReasonPlaceholder}, {"a.example", own, "", protocol.ReasonPlaceholder},
	} {
		use, err := pick(set, authority(t, tt.host), "https", claim(tt.key), "/")
		var refused *protocol.RefusedError
		if tt.reason != 0 {
			if !errors.As(err, &refused) || refused.Reason != tt.reason {
				t.Errorf("%s with %s: %v, want %s", tt.host, tt.key, err, tt.reason)
			}
			continue
		}
		if err != nil || use.Name != tt.want {
			t.Errorf("%s with %s: %v, %v, want %s", tt.host, tt.key, use, err, tt.want)
		}
	}
	if _, err := NewSet([]Secret{{Meta: meta("A", "https://a.example"), Value: secret.New([]byte("x")), Shared: "ya29." + shared}}); err == nil {
		t.Error("a shared placeholder that does not begin with its mark")
	}
}
