package sign

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// The keys of RFC 9421, Appendix B.1, as far as the cases need them.
const (
	rfcShared  = "uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ=="
	rfcEd25519 = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF\n-----END PRIVATE KEY-----\n"
)

var rfcPublic = map[string]string{
	"test-key-rsa-pss": `-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAr4tmm3r20Wd/PbqvP1s2
+QEtvpuRaV8Yq40gjUR8y2Rjxa6dpG2GXHbPfvMs8ct+Lh1GH45x28Rw3Ry53mm+
oAXjyQ86OnDkZ5N8lYbggD4O3w6M6pAvLkhk95AndTrifbIFPNU8PPMO7OyrFAHq
gDsznjPFmTOtCEcN2Z1FpWgchwuYLPL+Wokqltd11nqqzi+bJ9cvSKADYdUAAN5W
Utzdpiy6LbTgSxP7ociU4Tn0g5I6aDZJ7A8Lzo0KSyZYoA485mqcO0GVAdVw9lq4
aOT9v6d+nb4bnNkQVklLQ3fVAvJm+xdDOp9LCNCN48V2pnDOkFV6+U9nV5oyc6XI
2wIDAQAB
-----END PUBLIC KEY-----`,
	"test-key-ecc-p256": `-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEqIVYZVLCrPZHGHjP17CTW0/+D9Lf
w0EkjqF7xB4FivAxzic30tMM4GF+hR6Dxh71Z50VGGdldkkDXZCnTNnoXQ==
-----END PUBLIC KEY-----`,
	"test-key-ed25519": `-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAJrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs=
-----END PUBLIC KEY-----`,
}

// verifies reports whether signature is text's, by a public key or a shared secret.
func verifies(public any, pss bool, text, signature []byte) bool {
	sum := sha256.Sum256(text)
	switch k := public.(type) {
	case []byte:
		m := hmac.New(sha256.New, k)
		m.Write(text)
		return hmac.Equal(m.Sum(nil), signature)
	case ed25519.PublicKey:
		return ed25519.Verify(k, text, signature)
	case *ecdsa.PublicKey:
		half := len(signature) / 2
		digest := sum[:]
		if k.Curve == elliptic.P384() {
			d := sha512.Sum384(text)
			digest = d[:]
		}
		return ecdsa.Verify(k, digest, new(big.Int).SetBytes(signature[:half]), new(big.Int).SetBytes(signature[half:]))
	case *rsa.PublicKey:
		if !pss {
			return rsa.VerifyPKCS1v15(k, crypto.SHA256, sum[:], signature) == nil
		}
		wide := sha512.Sum512(text)
		return rsa.VerifyPSS(k, crypto.SHA512, wide[:], signature, &rsa.PSSOptions{SaltLength: 64}) == nil
	}
	return false
}

// readCase reads one of the appendix's cases: a request, and how it is signed.
func readCase(t *testing.T, file string) (r *Request, key, params string, signature []byte) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head, tail, _ := strings.Cut(string(b), "\n\n")
	lines := strings.Split(head, "\n")
	r = &Request{}
	method, uri, _ := strings.Cut(lines[0], " https://")
	slash := strings.IndexByte(uri, '/')
	r.Method, r.Host, r.Target = method, uri[:slash], uri[slash:]
	for _, l := range lines[1:] {
		name, value, _ := strings.Cut(l, ": ")
		r.Fields = append(r.Fields, protocol.Field{Name: name, Value: value})
	}
	how := strings.Split(tail, "\n")
	signature, err = base64.StdEncoding.DecodeString(how[2])
	if err != nil {
		t.Fatal(err)
	}
	return r, how[0], how[1], signature
}

// coveredOf returns what a list of signature parameters covers.
func coveredOf(params string) []component {
	list, _, _ := strings.Cut(strings.TrimPrefix(params, "("), ")")
	return parseComponents(strings.ReplaceAll(list, `"`, ""))
}

// TestRFC9421 holds the signature base of Appendix B's requests to the RFC's signatures, and signs where the algorithm
// gives one signature alone. B.2.4 signs a response, which a client never does.
func TestRFC9421(t *testing.T) {
	files, err := filepath.Glob("testdata/rfc9421-*.txt")
	if err != nil || len(files) != 7 {
		t.Fatalf("%d cases, want 7: %v", len(files), err)
	}
	shared, _ := base64.StdEncoding.DecodeString(rfcShared)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			r, name, params, signature := readCase(t, file)
			base, err := signatureBase(r, r.Fields, coveredOf(params), params)
			if err != nil {
				t.Fatal(err)
			}
			var public any = shared
			if text, ok := rfcPublic[name]; ok {
				block, _ := pem.Decode([]byte(text))
				if public, err = x509.ParsePKIXPublicKey(block.Bytes); err != nil {
					t.Fatal(err)
				}
			}
			if !verifies(public, true, []byte(base), signature) {
				t.Errorf("the RFC's signature is not of\n%s", base)
			}
			if verifies(public, true, []byte(base+" "), signature) {
				t.Error("the RFC's signature is of another base, too")
			}
			var k key
			switch name {
			case "test-key-ed25519":
				k, err = parseKey([]byte(rfcEd25519), messageAlgorithms["ed25519"], "")
			case "test-shared-secret":
				k, err = parseKey([]byte(rfcShared), messageAlgorithms["hmac-sha256"], control.CodingBase64)
			default:
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got, err := k.sign([]byte(base)); err != nil || !bytes.Equal(got, signature) {
				t.Errorf("%x, %v", got, err)
			}
		})
	}
}

// testKey makes a key for an algorithm: the value of a secret, and what verifies.
func testKey(t testing.TB, alg string) (value string, public any) {
	t.Helper()
	var private crypto.Signer
	var err error
	switch control.KindOf(alg) {
	case control.KeyShared:
		return "a shared secret of some length", []byte("a shared secret of some length")
	case control.KeyEd25519:
		_, private, err = ed25519.GenerateKey(rand.Reader)
	case control.KeyP256:
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case control.KeyP384:
		private, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case control.KeyRSA:
		private, err = rsa.GenerateKey(rand.Reader, 2048)
	}
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), private.Public()
}

// verifyMessage checks the signature in fields over r, as a server does that has only what arrived.
func verifyMessage(r *Request, fields protocol.Fields, public any, alg string) error {
	input, ok := strings.CutPrefix(fields.Get("signature-input"), "sig1=")
	encoded := regexp.MustCompile(`^sig1=:(.*):$`).FindStringSubmatch(fields.Get("signature"))
	if !ok || encoded == nil {
		return errors.New("no signature")
	}
	signature, err := base64.StdEncoding.DecodeString(encoded[1])
	if err != nil {
		return err
	}
	base, err := signatureBase(r, fields, coveredOf(input), input)
	if err != nil {
		return err
	}
	if !verifies(public, alg == "rsa-pss-sha512", []byte(base), signature) {
		return errors.New("wrong signature")
	}
	if d, err := parseDigest(fields.Get("content-digest")); err != nil || newDigest(d.hash, r.Content) != d {
		return errors.New("wrong digest")
	}
	return nil
}

// signMessage plans and signs r and returns the fields that go out.
func signMessage(s Signer, value string, r *Request) (protocol.Fields, error) {
	return signMessageAt(s, value, r, testNow)
}

func signMessageAt(s Signer, value string, r *Request, now time.Time) (protocol.Fields, error) {
	proof, err := proveAt(s, value, r, now)
	if err != nil {
		return nil, err
	}
	out := r.Fields.Clone().DelFunc(func(f protocol.Field) bool { return s.Strip(f.Name) })
	for name, value := range fieldsOf(proof) {
		out = append(out, protocol.Field{Name: name, Value: value})
	}
	return out, nil
}

// TestMessage signs by every algorithm, has it verified, and then changes one thing of the request at a time.
func TestMessage(t *testing.T) {
	for alg := range messageAlgorithms {
		for _, components := range []string{"", ",components=@method @target-uri content-digest content-type x-id"} {
			t.Run(alg+components, func(t *testing.T) {
				value, public := testKey(t, alg)
				s := newTestSigner(t, "rfc9421:keyid=k1,alg="+alg+components)
				base := func() *Request {
					return &Request{Method: "POST", Host: "api.example.org", Target: "/a/b?c=d", Content: []byte("content"), Whole: true, Fields: protocol.Fields{
						{Name: "content-type", Value: "text/plain"}, {Name: "x-id", Value: "1"}, {Name: "x-id", Value: "2"},
						{Name: "signature", Value: "sig1=:AAAA:"}, {Name: "authorization", Value: "Bearer own"}}}
				}
				fields, err := signMessage(s, value, base())
				if err != nil {
					t.Fatal(err)
				}
				if fields.Count("signature") != 1 || fields.Count("authorization") != 0 {
					t.Errorf("fields %v", fields)
				}
				if err := verifyMessage(base(), fields, public, alg); err != nil {
					t.Fatalf("%v: %v", err, fields)
				}
				for name, change := range map[string]func(r *Request, f protocol.Fields) protocol.Fields{
					"method":   func(r *Request, f protocol.Fields) protocol.Fields { r.Method = "PUT"; return f },
					"host":     func(r *Request, f protocol.Fields) protocol.Fields { r.Host = "api.example.com"; return f },
					"path":     func(r *Request, f protocol.Fields) protocol.Fields { r.Target = "/a/c?c=d"; return f },
					"query":    func(r *Request, f protocol.Fields) protocol.Fields { r.Target = "/a/b?c=e"; return f },
					"no query": func(r *Request, f protocol.Fields) protocol.Fields { r.Target = "/a/b"; return f },
					"content":  func(r *Request, f protocol.Fields) protocol.Fields { r.Content = []byte("Content"); return f },
					"digest": func(r *Request, f protocol.Fields) protocol.Fields {
						r.Content = []byte("Content")
						return f.Set("content-digest", newDigest(crypto.SHA256, r.Content).String())
					},
					"type": func(_ *Request, f protocol.Fields) protocol.Fields { return f.Set("content-type", "text/html") },
					"life": func(_ *Request, f protocol.Fields) protocol.Fields {
						return f.Set("signature-input", strings.Replace(f.Get("signature-input"), "expires=1", "expires=2", 1))
					},
				} {
					r := base()
					if err := verifyMessage(r, change(r, fields.Clone()), public, alg); err == nil {
						t.Errorf("%s: still verifies", name)
					}
				}
			})
		}
	}
}

// TestMessageContent keeps the workload's own digest, and holds the content to it.
func TestMessageContent(t *testing.T) {
	value, public := testKey(t, "ed25519")
	s := newTestSigner(t, "rfc9421:keyid=k1,alg=ed25519")
	for _, hash := range digestNames {
		own := newDigest(hash, []byte("content")).String()
		r := &Request{Method: "POST", Host: "api.example.org", Target: "/", Fields: protocol.Fields{{Name: "content-digest", Value: own}}}
		p, err := s.Plan(r)
		if err != nil || p.Demand() != DemandNothing {
			t.Fatalf("%s: %v, %v", own, p, err)
		}
		proof, err := p.Sign(secret.New([]byte(value)), r, testNow)
		if err != nil || proof.Content == nil {
			t.Fatal(err)
		}
		for content, want := range map[string]error{"content": nil, "Content": ErrContent} {
			w := proof.Content(io.Discard)
			_, _ = io.WriteString(w, content)
			if err := w.Close(); !errors.Is(err, want) {
				t.Errorf("%s of %s: %v, want %v", own, content, err, want)
			}
		}
		r.Whole, r.Content = true, []byte("Content")
		if _, err := signMessage(s, value, r); !errors.Is(err, ErrContent) {
			t.Errorf("content that is there: %v", err)
		}
		r.Content = []byte("content")
		if fields, err := signMessage(s, value, r); err != nil || verifyMessage(r, fields, public, "ed25519") != nil || fields.Get("content-digest") != own {
			t.Errorf("the control: %v, %v", fields, err)
		}
	}
	for _, bad := range []string{"md5=:AAAA:", "sha-256=:AAAA:", "sha-256=AAAA", "sha-256=:AAAA:, sha-512=:AAAA:", "sha-256=:" + strings.Repeat("=", 44) + ":", ""} {
		r := &Request{Method: "POST", Host: "h", Target: "/", Fields: protocol.Fields{{Name: "content-digest", Value: bad}}}
		if _, err := s.Plan(r); err == nil {
			t.Errorf("%q passes", bad)
		}
	}
}

// TestMessageRefused asks to sign what is not there, and by keys of the wrong kind.
func TestMessageRefused(t *testing.T) {
	for name, c := range map[string]struct{ scheme, key string }{
		"no such field":     {"rfc9421:keyid=k,alg=ed25519,components=@method @target-uri content-digest x-absent", "ed25519"},
		"no such parameter": {"rfc9421:keyid=k,alg=ed25519,components=@method @target-uri content-digest @query-param;name=absent", "ed25519"},
		"two parameters":    {"rfc9421:keyid=k,alg=ed25519,components=@method @target-uri content-digest @query-param;name=a", "ed25519"},
		"another kind":      {"rfc9421:keyid=k,alg=ed25519", "ecdsa-p256-sha256"},
		"another curve":     {"rfc9421:keyid=k,alg=ecdsa-p256-sha256", "ecdsa-p384-sha384"},
		"no key":            {"rfc9421:keyid=k,alg=rsa-pss-sha512", "hmac-sha256"},
	} {
		value, _ := testKey(t, c.key)
		r := &Request{Method: "GET", Host: "h", Target: "/?a=1&a=2", Whole: true}
		if f, err := signMessage(newTestSigner(t, c.scheme), value, r); err == nil {
			t.Errorf("%s: signed: %v", name, f)
		}
	}
	for list, ok := range map[string]bool{
		"@method @target-uri content-digest": true, "@method @authority @path @query content-digest date": true, "@method @authority @request-target content-digest": true,
		"@method @authority @path content-digest": false, "@target-uri content-digest": false, "@method @target-uri": false, "": false,
		"@method @target-uri content-digest @status": false, "@method @target-uri content-digest Date": false, "@method @target-uri content-digest content-length": false,
		"@method @method @target-uri content-digest": false, "@method @target-uri content-digest date;sf": false,
	} {
		in, err := control.ParseScheme("rfc9421:keyid=k,alg=ed25519,components=" + list)
		if err == nil {
			err = control.CheckMeta(control.Meta{Agent: "a", Name: "K", Version: 1, Audience: []string{"https://a.example"}, Inject: in})
		}
		if (err == nil) != ok {
			t.Errorf("%q: %v", list, err)
		}
	}
}

// FuzzDigest reads anything as a Content-Digest: what is read is written again as it was.
func FuzzDigest(f *testing.F) {
	f.Add(newDigest(crypto.SHA256, nil).String())
	f.Add(newDigest(crypto.SHA512, []byte("content")).String())
	f.Add("sha-256=:AAAA:")
	f.Fuzz(func(t *testing.T, value string) {
		if d, err := parseDigest(value); err == nil && d.String() != value {
			t.Fatalf("%q becomes %q", value, d.String())
		}
	})
}
