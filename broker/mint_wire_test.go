package broker

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// TestAttack32Wire has a token endpoint answer in ways that no reader may be at the mercy of: without an end, coded, cut short,
// with what splits a field, with interim answers for ever. Nothing arrives at the host, nothing of it is in the audit, and the
// same stream goes on.
func TestAttack32Wire(t *testing.T) {
	const canary = "canary-4be1d07c9a"
	good := `{"access_token":"` + canary + `","token_type":"Bearer"}`
	for name, answer := range map[string]http.HandlerFunc{
		"without an end": func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, `{"access_token":"`+canary)
			block := bytes.Repeat([]byte("x"), 64<<10)
			for sent := 0; sent < 1<<30; sent += len(block) {
				if _, err := w.Write(block); err != nil || r.Context().Err() != nil {
					return
				}
			}
			t.Error("the broker took a gibibyte")
		},
		"coded": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			_, _ = io.WriteString(z, good)
			_ = z.Close()
		},
		"cut short": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = io.WriteString(w, good)
		},
		"CR LF in the token":      saying(`{"access_token":"` + canary + `\r\nx-evil: 1"}`),
		"NUL in the token":        saying(`{"access_token":"` + canary + `\u0000"}`),
		"CR LF in the next one":   saying(`{"access_token":"t","refresh_token":"` + canary + `\r\n"}`),
		"a token of another type": saying(`{"access_token":"` + canary + `","token_type":"mac"}`),
		"HTML":                    saying("<html>" + canary),
		"nothing":                 saying(""),
		"a lifetime of no number": saying(`{"access_token":"` + canary + `","expires_in":{}}`),
		"JSON that is deep":       saying(strings.Repeat("[", 60<<10)),
		"a refusal that quotes it": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(400)
			_, _ = io.WriteString(w, `{"error":"`+canary+`"}`)
		},
		"interim answers for ever": func(w http.ResponseWriter, r *http.Request) {
			for i := 0; i < 1<<20 && r.Context().Err() == nil; i++ {
				w.WriteHeader(103)
			}
		},
	} {
		arrived := 0
		d, stream := openedMinting(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { arrived++ }), answer, "oauth2:token="+idServer+"/token,id=me", testKey)
		p := stream()
		for range 2 {
			resp, body, err := p.ask(get("/"), "")
			if err != nil || resp.Status != 502 || resp.Fields.Get("torno-reason") != "credential_unavailable" || strings.Contains(body, canary) {
				t.Errorf("%s: %v, %q, %v", name, resp, body, err)
			}
		}
		if log := d.auditText(); arrived != 0 || strings.Contains(log, canary) || leaks(log) || !strings.Contains(log, `"event":"token_refused"`) {
			t.Errorf("%s: %d arrived, audit: %s", name, arrived, log)
		}
		d.stop()
	}
}

// saying answers with text.
func saying(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) }
}

// What an endpoint issues is on disk sealed, or not at all: neither access tokens nor refresh tokens nor the key that they are
// bound to stand in the state directory, in any spelling, while the broker runs and after it.
func TestMintedValuesSealed(t *testing.T) {
	id := &issuer{}
	var mu sync.Mutex
	var all []string
	id.answer = func(w http.ResponseWriter, _ *http.Request, token string) {
		mu.Lock()
		defer mu.Unlock()
		refresh := fmt.Sprintf("refresh-%d-%s", len(all), token)
		all = append(all, token, refresh)
		fmt.Fprintf(w, `{"access_token":%q,"token_type":"DPoP","refresh_token":%q,"expires_in":3600}`, token, refresh)
	}
	user, err := json.Marshal(map[string]string{"type": "authorized_user", "client_id": "known-client", "refresh_token": testKey})
	if err != nil {
		t.Fatal(err)
	}
	d, stream := openedMinting(t, http.HandlerFunc(checkKey), id, "refresh-token:token="+idServer+"/token,dpop=ES256", string(user))
	if resp, _, err := stream().ask(get("/"), ""); err != nil || resp.Status != 200 || len(all) != 2 {
		t.Fatalf("%v, %v; %d tokens", resp, err, len(all))
	}
	all = append(all, testKey, "PRIVATE KEY")
	look := func(when string) {
		t.Helper()
		bytesSeen := 0
		err := filepath.WalkDir(d.cfg.StateDir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return err
			}
			b, err := os.ReadFile(path)
			bytesSeen += len(b)
			for _, value := range all {
				for _, spelled := range []string{value, hex.EncodeToString([]byte(value)), base64.StdEncoding.EncodeToString([]byte(value))[:len(value)]} {
					if bytes.Contains(b, []byte(spelled)) {
						t.Errorf("%s: %s holds %q", when, path, spelled)
					}
				}
			}
			return err
		})
		if err != nil || bytesSeen < 4<<10 {
			t.Errorf("%s: %d bytes, %v", when, bytesSeen, err)
		}
	}
	look("while it runs")
	d.stop()
	look("after it")
	d.start() // and it was kept: the next token is got with the one that was issued
	if resp, _, err := stream().ask(get("/"), ""); err != nil || resp.Status != 200 {
		t.Fatalf("%v, %v", resp, err)
	}
	if got := id.forms[len(id.forms)-1].Get("refresh_token"); got != all[1] {
		t.Errorf("the second token was got with %q, want %q", got, all[1])
	}
}
