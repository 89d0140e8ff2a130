package main_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"maps"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// A proving scheme never sends its secret: what it makes of it goes to a host that repeats all that it gets.
type provingScheme struct {
	name, value, as string
	flags           []string
	sends           string // what the host must have got, in some field
}

// reflecting lets hosts repeat secrets as often as they like.
const reflecting = "[limits]\nreflections_per_response = 100000\nreflections_per_session = 1000000\n"

const provedHost = ".prove.example.net"

// provingSchemes are those that sign, and those that mint.
func provingSchemes(t *testing.T) []provingScheme {
	t.Helper()
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	key := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	text := func() string { return rand.Text() + rand.Text() }
	const token = "token=https://id" + provedHost + "/token,id=me"
	return []provingScheme{
		{"sigv4", "AKIAPROOF00000000001:" + text(), "sigv4:service=execute-api,region=eu-central-1", nil, "AWS4-HMAC-SHA256 Credential=AKIAPROOF"},
		{"rfc9421", key, "rfc9421:alg=ed25519,keyid=k1", nil, `keyid="k1"`},
		{"hmac", text(), "hmac:sign={method}{lf}{target}", []string{"--header", "X-Signature: v1={signature}"}, "v1="},
		{"jwt", key, "jwt:alg=EdDSA,kid=key-1,iss=my-team,aud=https://jwt" + provedHost, nil, "Bearer eyJ"},
		{"oauth2", text(), "oauth2:" + token, nil, "Bearer real-"},
		{"dpop", text(), "oauth2:dpop=ES256," + token, nil, "DPoP real-"},
	}
}

// provers are the hosts of these schemes, and what they got.
type provers struct {
	mu  sync.Mutex
	got map[string]string // by scheme, all fields of the last request
}

// hosts are one for each scheme, which repeats all that it gets, and a token endpoint.
func (p *provers) hosts(t *testing.T, all []provingScheme) map[string]http.Handler {
	t.Helper()
	p.got = map[string]string{}
	id := &issuer{t: t, knows: func(*http.Request) error { return nil }}
	hosts := map[string]http.Handler{"id" + provedHost: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("DPoP") != "" {
			w = &dpopAnswer{w}
		}
		id.ServeHTTP(w, r)
	})}
	for _, s := range all {
		hosts[s.name+provedHost] = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			p.mu.Lock()
			for _, values := range r.Header {
				p.got[s.name] += strings.Join(values, "\n") + "\n"
			}
			p.mu.Unlock()
			repeat(w, r, "")
		})
	}
	return hosts
}

// A dpopAnswer names the other type of token.
type dpopAnswer struct{ http.ResponseWriter }

func (d *dpopAnswer) Write(b []byte) (int, error) {
	_, err := d.ResponseWriter.Write([]byte(strings.Replace(string(b), `"Bearer"`, `"DPoP"`, 1)))
	return len(b), err
}

// provingURLs sets the schemes' secrets, and those that clouds' SDKs ask for, and returns what the workload asks.
func (h *house) provingURLs(all []provingScheme, googleKey string) (urls []string) {
	h.t.Helper()
	for _, s := range all {
		key := "PROVE_" + strings.ToUpper(s.name)
		h.write(s.name+".secret", s.value)
		h.must(append([]string{"secrets", "set", "my-agent", key + "=@" + s.name + ".secret", "--host", s.name + provedHost, "--as", s.as}, s.flags...)...)
		urls = append(urls, "https://"+s.name+provedHost+"/")
	}
	h.write("google.secret", googleKey)
	h.must("secrets", "set", "my-agent", "PROVE_GOOGLE=@google.secret", "--host", "storage.googleapis.com", "--as", "google")
	return append(urls, "https://storage.googleapis.com/storage/v1/b/things/o")
}

// metadataScript asks the metadata services as SDKs do, and counts what is no placeholder.
const metadataScript = `
def metadata(s):
    token = s.put("http://169.254.169.254/latest/api/token", headers={"x-aws-ec2-metadata-token-ttl-seconds": "60"}).text
    aws = s.get("http://169.254.169.254/latest/meta-data/iam/security-credentials/torno", headers={"x-aws-ec2-metadata-token": token}).json()
    google = s.get("http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/token", headers={"Metadata-Flavor": "Google"}).json()
    return sum("tornoInert" not in v for v in (aws["AccessKeyId"], aws["SecretAccessKey"], aws["Token"], google["access_token"]))
`

// check reports what a host did not get: the control of the proof.
func (p *provers) check(t *testing.T, all []provingScheme) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range all {
		if !strings.Contains(p.got[s.name], s.sends) {
			t.Errorf("%s%s got %q, want %q in it", s.name, provedHost, p.got[s.name], s.sends)
		}
	}
}

// newProvingHouse is a house with the hosts of all schemes that sign or mint.
func newProvingHouse(t *testing.T, extra string) (h *house, p *provers, all []provingScheme, urls []string) {
	t.Helper()
	all, p = provingSchemes(t), &provers{}
	hosts, key := newGoogle(t)
	maps.Copy(hosts, p.hosts(t, all))
	h = newHouse(t, extra+serveHosts(t, hosts))
	return h, p, all, h.provingURLs(all, key)
}

// The schemes of the proof do what they are there for, in a namespace.
func TestProvingSchemes(t *testing.T) {
	h, p, all, urls := newProvingHouse(t, reflecting)
	r := h.torno("run", "--agent", "my-agent", "--isolation", "namespace", "--", "/usr/bin/python3", "-c", "import requests\n"+metadataScript+
		"s = requests.Session()\nprint(metadata(s), [s.get(u).status_code for u in "+pythonList(urls)+"])")
	if want := "0 [" + strings.Repeat("200, ", len(urls)-1) + "200]\n"; r.stdout != want {
		t.Errorf("%q, want %q (%s)", r.stdout, want, r.stderr)
	}
	p.check(t, all)
}

func pythonList(all []string) string { return `["` + strings.Join(all, `", "`) + `"]` }
