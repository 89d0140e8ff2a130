package broker

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

const hookSecret = "whsec_Vq3xN8zL5tR2wY7uK4pJ9mB6cD1fG0hS"

func hexMAC(key, text string) string {
	m := hmac.New(sha256.New, []byte(key))
	m.Write([]byte(text))
	return hex.EncodeToString(m.Sum(nil))
}

// TestSignedHMAC signs as Stripe does on the way: what arrives is verified by hand, the workload's own signature is not among it,
// and what comes back of the key is masked.
func TestSignedHMAC(t *testing.T) {
	d, stream := openedAs(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		content, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		at, signature, _ := strings.Cut(strings.TrimPrefix(r.Header.Get("Stripe-Signature"), "t="), ",v1=")
		ok := signature == hexMAC(hookSecret, at+"."+string(content)) && len(r.Header.Values("Stripe-Signature")) == 1 && r.Header.Get("Authorization") == ""
		fmt.Fprintf(w, "%v %d %s", ok, len(content), hookSecret)
	}), "hmac:preset=stripe", hookSecret)
	for _, size := range []int{0, 10, 300_000} {
		req := get("/hook?a=1", protocol.Field{Name: "stripe-signature", Value: "t=1,v1=00"}, protocol.Field{Name: "authorization", Value: "own"})
		req.Method = "POST"
		_, answer, err := stream().ask(req, strings.Repeat("x", size))
		if err != nil || !strings.HasPrefix(answer, fmt.Sprintf("true %d ", size)) || strings.Contains(answer, hookSecret[6:]) {
			t.Errorf("%q, %v", answer, err)
		}
	}
	if text := d.auditText(); strings.Contains(text, hookSecret[6:]) || !strings.Contains(text, `"path":"/hook`) {
		t.Errorf("the audit: %s", text)
	}
}

// TestSignedQuery signs in the query, where the workload's own parameters of those names stand, encoded too. The audit shows neither.
func TestSignedQuery(t *testing.T) {
	d, stream := openedAs(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		signed, signature, _ := strings.Cut(r.URL.RawQuery, "&signature=")
		fmt.Fprintf(w, "%v %s %s", signature == hexMAC(hookSecret, signed), strings.Split(signed, "&timestamp=")[0], r.Header.Get("X-Mbx-Apikey"))
	}), "hmac:preset=binance", "id1:"+hookSecret)
	req := get("/api/v3/order?symbol=A&timestamp=1&side=B&%73ignature=0wn&Timestamp=2", protocol.Field{Name: "x-mbx-apikey", Value: "own"},
		protocol.Field{Name: "x-original-url", Value: "/api/v3/order?symbol=A&side=B"})
	if _, answer, err := stream().ask(req, ""); err != nil || answer != "true symbol=A&side=B id1" {
		t.Errorf("%q, %v", answer, err)
	}
	if text := d.auditText(); strings.Contains(text, "ignature=") || !strings.Contains(text, "symbol=A&side=B") && !strings.Contains(text, `symbol=A\u0026side=B`) {
		t.Errorf("the audit: %s", text)
	}
}

// TestSignedHMACStreams sends content that is not signed: it reaches the host before its end is there, and nothing is held.
func TestSignedHMACStreams(t *testing.T) {
	arrived, more := make(chan bool), make(chan bool)
	_, stream := openedAs(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b := make([]byte, 5)
		_, err := io.ReadFull(r.Body, b)
		arrived <- err == nil && string(b) == "first"
		rest, err := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%d %v", len(rest), err)
	}), "hmac:sign={method}{lf}{url}{lf}{time:ms},query=t={time:ms}&s={signature}", hookSecret)
	p := stream()
	req := get("/upload")
	req.Method = "PUT"
	if err := p.w.WriteRequest(req); err != nil {
		t.Fatal(err)
	}
	go func() {
		_, _ = io.WriteString(p.w, "first")
		_ = p.w.Flush()
		<-more
		_, _ = io.Copy(p.w, strings.NewReader(strings.Repeat("x", 20<<20))) // more than may be held
		_ = p.w.Close(nil)
	}()
	select {
	case ok := <-arrived:
		if !ok {
			t.Error("what arrives first is not what was sent first")
		}
	case <-time.After(15 * time.Second):
		t.Fatal("the content's beginning does not arrive before its end")
	}
	close(more)
	var resp protocol.Response
	if err := p.r.ReadResponse(&resp); err != nil || resp.Status != 200 {
		t.Fatalf("%+v, %v", resp, err)
	}
	if b, err := io.ReadAll(p.r); err != nil || string(b) != fmt.Sprintf("%d <nil>", 20<<20) {
		t.Errorf("%q, %v", b, err)
	}
}

// TestAttack31HMACUnsignable sends what can't be signed as it stands: nothing arrives.
func TestAttack31HMACUnsignable(t *testing.T) {
	var hits int
	_, stream := openedAs(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits++ }), "hmac:preset=kraken", "id1:"+awsSecret)
	form := protocol.Field{Name: "content-type", Value: "application/x-www-form-urlencoded"}
	for name, c := range map[string]struct {
		fields  []protocol.Field
		content string
	}{
		"no form":      {[]protocol.Field{{Name: "content-type", Value: "application/json"}}, `{"nonce":1}`},
		"two types":    {[]protocol.Field{form, {Name: "content-type", Value: "text/plain"}}, "nonce=1"},
		"no nonce":     {[]protocol.Field{form}, "a=1"},
		"two nonces":   {[]protocol.Field{form}, "nonce=1&nonce=2"},
		"bad encoding": {[]protocol.Field{form}, "nonce=%4"},
		"nothing":      {nil, ""},
		"much":         {[]protocol.Field{form}, "nonce=1&" + strings.Repeat("a&", 5000)},
		"too much":     {[]protocol.Field{form, {Name: "content-length", Value: "99999999"}}, ""},
	} {
		req := get("/0/private/AddOrder", c.fields...)
		req.Method = "POST"
		resp, _, err := stream().ask(req, c.content)
		if err != nil || resp.Fields.Get(protocol.FieldReason) != "unsignable" {
			t.Errorf("%s: %+v, %v", name, resp, err)
		}
	}
	if hits > 0 {
		t.Errorf("%d requests arrived", hits)
	}
}

// TestSignedPassphrase sends a part of the secret with the signature: it is masked when it comes back, and no Range may cut it up.
func TestSignedPassphrase(t *testing.T) {
	const key, pass = "kQH5HW/8p1uGOVjbgWA7FunAmGO8lsSUXNsu3eow76sz84Q18fWxnyRzBHCd3pd5", "Correct-Horse-Battery-Staple-77"
	_, stream := openedAs(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%v %q %s", r.Header.Get("Cb-Access-Passphrase") == pass, r.Header.Get("Range"), pass)
	}), "hmac:preset=coinbase-exchange", "id1:"+key+":"+pass)
	_, answer, err := stream().ask(get("/accounts", protocol.Field{Name: "range", Value: "bytes=0-9"}), "")
	if err != nil || !strings.HasPrefix(answer, `true "" `) || strings.Contains(answer, pass[:12]) || strings.Contains(answer, pass[12:]) {
		t.Errorf("%q, %v", answer, err)
	}
	if !(control.Meta{Inject: control.Injector{Scheme: "hmac", Params: []control.Param{{Name: "preset", Value: "coinbase-exchange"}}}}).Reveals() {
		t.Error("nobody knows that the signature reveals it")
	}
}

// TestSignedAzure signs by Shared Key on the way, also content whose length the workload does not say.
func TestSignedAzure(t *testing.T) {
	key := base64.StdEncoding.EncodeToString([]byte("an account's key of sixty-four bytes, as storage accounts have them"))
	_, stream := openedAs(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		content, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		length := ""
		if r.ContentLength != 0 {
			length = strconv.FormatInt(r.ContentLength, 10)
		}
		text := r.Method + "\n\n\n" + length + "\n\n" + r.Header.Get("Content-Type") + "\n\n\n\n\n\n" + r.Header.Get("Range") + "\nx-ms-blob-type:" + r.Header.Get("X-Ms-Blob-Type") +
			"\nx-ms-date:" + r.Header.Get("X-Ms-Date") + "\nx-ms-version:2025-01-05\n/acc" + r.URL.EscapedPath() + "\ncomp:block"
		plain, _ := base64.StdEncoding.DecodeString(key)
		m := hmac.New(sha256.New, plain)
		m.Write([]byte(text))
		ok := r.Header.Get("Authorization") == "SharedKey acc:"+base64.StdEncoding.EncodeToString(m.Sum(nil)) && len(r.Header.Values("X-Ms-Date")) == 1
		fmt.Fprintf(w, "%v %d %s", ok, len(content), r.Header.Get("Range"))
	}), "azure-storage:account=acc", key)
	for name, c := range map[string]struct {
		fields  []protocol.Field
		content string
	}{
		"nothing":          {nil, ""},
		"a range":          {[]protocol.Field{{Name: "range", Value: "bytes=0-9"}}, ""},
		"a known length":   {[]protocol.Field{{Name: "content-length", Value: "300000"}, {Name: "content-type", Value: "text/plain"}}, strings.Repeat("x", 300_000)},
		"an unknown one":   {nil, strings.Repeat("x", 200_000)},
		"one of 20 MiB":    {[]protocol.Field{{Name: "content-length", Value: strconv.Itoa(20 << 20)}}, strings.Repeat("x", 20<<20)},
		"with its own key": {[]protocol.Field{{Name: "authorization", Value: "SharedKey acc:own"}, {Name: "x-ms-date", Value: "Thu, 01 Jan 1970 00:00:00 GMT"}}, "x"},
	} {
		req := get("/c/b%20x?comp=block", append(c.fields, protocol.Field{Name: "x-ms-version", Value: "2025-01-05"}, protocol.Field{Name: "x-ms-blob-type", Value: "BlockBlob"})...)
		req.Method = "PUT"
		_, answer, err := stream().ask(req, c.content)
		if want := fmt.Sprintf("true %d %s", len(c.content), req.Fields.Get("range")); err != nil || answer != want {
			t.Errorf("%s: %q, %v; want %q", name, answer, err, want)
		}
	}
}
