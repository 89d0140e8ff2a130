package detach

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"torno.internal/broker/internal/sign"
	"torno.internal/protocol"
	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

func asked() *protocol.SignRequest {
	return &protocol.SignRequest{Method: "GET", Authority: "api.example.org", Path: "/a?b=c", SHA256: bytes.Repeat([]byte{1}, protocol.DigestSize),
		Fields: []protocol.SignField{{Name: "content-type", Value: "text/plain"}, {Name: "x-signature", Value: "own"}}}
}

func TestRead(t *testing.T) {
	r, err := Read(asked())
	if err != nil || r.Method != "GET" || r.Scheme != "https" || r.Authority != "api.example.org" || r.Path != "/a?b=c" || len(r.Fields) != 2 {
		t.Errorf("%+v, %v", r, err)
	}
	for name, change := range map[string]func(*protocol.SignRequest){
		"method": func(a *protocol.SignRequest) { a.Method = "GET /x" }, "long method": func(a *protocol.SignRequest) { a.Method = strings.Repeat("A", protocol.MaxMethod+1) },
		"CONNECT": func(a *protocol.SignRequest) { a.Method = "CONNECT" }, "path": func(a *protocol.SignRequest) { a.Path = "a" }, "empty path": func(a *protocol.SignRequest) { a.Path = "" },
		"star": func(a *protocol.SignRequest) { a.Path = "*" }, "long path": func(a *protocol.SignRequest) { a.Path = "/" + strings.Repeat("a", protocol.MaxPath) },
		"digest": func(a *protocol.SignRequest) { a.SHA256 = a.SHA256[1:] },
		"many fields": func(a *protocol.SignRequest) {
			for range protocol.MaxFields {
				a.Fields = append(a.Fields, protocol.SignField{Name: "x"})
			}
		},
		"field name": func(a *protocol.SignRequest) { a.Fields[0].Name = "a b" }, "upper case": func(a *protocol.SignRequest) { a.Fields[0].Name = "X" },
		"field value": func(a *protocol.SignRequest) { a.Fields[0].Value = "a\nb" }, "host": func(a *protocol.SignRequest) { a.Fields[0].Name = "host" },
		"length": func(a *protocol.SignRequest) { a.Fields[0].Name = "content-length" }, "connection": func(a *protocol.SignRequest) { a.Fields[0].Name = "transfer-encoding" },
		"ours": func(a *protocol.SignRequest) { a.Fields[0].Name = "torno-http" },
	} {
		a := asked()
		if change(a); name != "" {
			if r, err := Read(a); err == nil || r != nil {
				t.Errorf("%s: %+v", name, r)
			}
		}
	}
}

func signer(t testing.TB, as string, fields ...control.FieldTemplate) sign.Signer {
	t.Helper()
	in, err := control.ParseScheme(as)
	if err != nil {
		t.Fatal(err)
	}
	in.Fields = fields
	return sign.New(control.Meta{Inject: in})
}

func TestAnswer(t *testing.T) {
	s := signer(t, "hmac:sign={time:s}{lf}{method} {url}{lf}{body:sha256:hex}", control.FieldTemplate{Name: "x-signature", Value: "{signature}"}, control.FieldTemplate{Name: "x-time", Value: "{time:s}"})
	held, ok := sign.Hold(s, secret.New([]byte("a key that both sides share")))
	now := time.Unix(1_800_000_000, 0)
	answer, err := Answer(held, asked(), "api.example.org", now)
	if !ok || err != nil || len(answer.Fields) != 2 || len(answer.Fields[0].Value) != 64 || answer.Fields[1].Value != "1800000000" || len(answer.Remove) != 1 || answer.Remove[0] != "x-signature" ||
		answer.Expires.Sub(now) != protocol.MaxDetached {
		t.Errorf("%+v, %v", answer, err)
	}
	if b, err := json.Marshal(&protocol.SignResponse{Remove: []string{}}); err != nil || !strings.Contains(string(b), `"remove":[]`) {
		t.Errorf("%s, %v", b, err)
	}
	short := asked()
	short.SHA256 = nil
	if answer, err := Answer(held, short, "api.example.org", now); err == nil || answer != nil {
		t.Errorf("without a digest: %+v", answer)
	}
}

// FuzzRead reads anything: what is read can be sent, and its proof, too.
func FuzzRead(f *testing.F) {
	for _, a := range []*protocol.SignRequest{asked(), {}} {
		b, err := json.Marshal(a)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"method":"GET","path":"/a\r\nb","fields":[{"name":"x","value":"\u0000"}]}`))
	held, _ := sign.Hold(signer(f, "sigv4:service=s3,region=eu-central-1"), secret.New([]byte("AKIATEST:secretsecretsecretsecret")))
	f.Fuzz(func(t *testing.T, body []byte) {
		var a protocol.SignRequest
		if protocol.DecodeStrict(body, &a) != nil {
			return
		}
		r, err := Read(&a)
		if err != nil {
			return
		}
		if !protocol.IsToken(r.Method) || !protocol.IsPath(r.Path) || r.Scheme != "https" {
			t.Fatalf("%+v", r)
		}
		answer, err := Answer(held, &a, "api.example.org", time.Unix(1_800_000_000, 0))
		if err != nil {
			return
		}
		for _, l := range answer.Fields {
			if !protocol.IsToken(l.Name) || !protocol.IsFieldValue(l.Value) || strings.Contains(l.Value, "secretsecret") {
				t.Fatalf("%+v", l)
			}
		}
	})
}
