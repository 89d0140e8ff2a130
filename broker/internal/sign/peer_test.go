package sign

import (
	"crypto/x509"
	"encoding/pem"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"torno.internal/protocol"
)

// peer is a program for Node that verifies messages by somebody else's implementation of RFC 9421, and prints a line
// for each.
const peer = `
const {httpbis, createVerifier} = require(process.argv[1]);
(async () => {
  for (const m of JSON.parse(require("fs").readFileSync(0, "utf8"))) {
    const key = {id: "k1", algs: [m.alg], verify: createVerifier(m.key, m.alg)};
    try {
      console.log(await httpbis.verifyMessage({keyLookup: async () => key}, {method: m.method, url: m.url, headers: m.headers}));
    } catch (e) { console.log("error: " + e.message); }
  }
})();
`

// A peerMessage is what the peer verifies.
type peerMessage struct {
	Alg     string              `json:"alg"`
	Key     string              `json:"key"`
	Method  string              `json:"method"`
	URL     string              `json:"url"`
	Headers map[string][]string `json:"headers"`
}

// TestMessagePeer has npm's http-message-signatures verify messages of every algorithm that it knows, as they are and
// with another path.
func TestMessagePeer(t *testing.T) {
	module := clientPackage(t, "node/node_modules/http-message-signatures")
	var messages []peerMessage
	var want []string
	for _, alg := range []string{"ed25519", "ecdsa-p256-sha256", "ecdsa-p384-sha384", "rsa-pss-sha512", "rsa-v1_5-sha256", "hmac-sha256"} {
		value, public := testKey(t, alg)
		r := &Request{Method: "POST", Host: "api.example.org", Target: "/a%20b/ü?c=d&e=%2F", Content: []byte("content"), Whole: true,
			Fields: protocol.Fields{{Name: "content-type", Value: "text/plain"}}}
		r.Target = strings.ReplaceAll(r.Target, "ü", "%C3%BC")
		fields, err := signMessageAt(newTestSigner(t, "rfc9421:keyid=k1,alg="+alg), value, r, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		m := peerMessage{Alg: alg, Key: publicText(t, public), Method: r.Method, URL: "https://" + r.Host + r.Target, Headers: map[string][]string{}}
		for _, f := range fields {
			m.Headers[f.Name] = append(m.Headers[f.Name], f.Value)
		}
		bad := m
		bad.URL = strings.Replace(m.URL, "/a", "/b", 1)
		messages = append(messages, m, bad)
		want = append(want, "true", "false")
	}
	if got := ask(t, exec.CommandContext(t.Context(), "node", "-e", peer, module), messages); !slices.Equal(got, want) {
		t.Errorf("the peer says %q", got)
	}
}

// publicText returns a key as the peer takes it.
func publicText(t *testing.T, public any) string {
	t.Helper()
	if shared, ok := public.([]byte); ok {
		return string(shared)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}
