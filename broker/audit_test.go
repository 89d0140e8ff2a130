package broker

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"torno.internal/protocol/control"
)

// text asks the control API and returns its answer as it stands.
func (d *desk) text(method, path, body string) (int, string) {
	d.t.Helper()
	req, err := http.NewRequest(method, "http://torno"+path, strings.NewReader(body))
	d.must(err)
	resp, err := d.client.Do(req)
	d.must(err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	d.must(err)
	return resp.StatusCode, string(b)
}

// What the command reads from files a platform asks the control API for: records, exchanges, checkpoints, keys and a
// verdict.
func TestAuditAPI(t *testing.T) {
	d, s, stream := opened(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), control.Limits{})
	if resp, _, err := stream().ask(get("/asked?token=canary-7f3a9b2c"), ""); err != nil || resp.Status != 200 {
		t.Fatalf("%d, %v", resp.Status, err)
	}
	var all string
	for range 500 { // the end is recorded once the answer has gone
		if _, all = d.text("GET", control.PathAudit+"?last=100", ""); strings.Contains(all, `"type":"end"`) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if strings.Contains(all, "canary") || !strings.Contains(all, `"path":"/asked?token=***"`) {
		t.Errorf("records: %s", all)
	}
	code, found := d.text("POST", control.PathAuditQuery, `{"session":"`+s.ID+`","method":"GET","status":"2xx"}`)
	if code != 200 || strings.Count(found, "\n") != 1 || !strings.Contains(found, `"/asked?token=***"`) || !strings.Contains(found, `,"end":{"seq":`) {
		t.Errorf("query: %d, %s", code, found)
	}
	for _, bad := range []string{`{"status":"x"}`, `{"colour":"red"}`, `[]`, ``} {
		if code, answer := d.text("POST", control.PathAuditQuery, bad); code != 400 || !strings.Contains(answer, `"code":"invalid"`) {
			t.Errorf("query %s: %d, %s", bad, code, answer)
		}
	}
	code, checkpoint := d.text("POST", control.PathAuditCheckpoint, "")
	if code != 200 || !strings.Contains(checkpoint, `"type":"checkpoint"`) {
		t.Fatalf("checkpoint: %d, %s", code, checkpoint)
	}
	var keys control.AuditKeys
	d.must(d.call("GET", control.PathAuditKeys, nil, &keys))
	var v control.AuditVerdict
	d.must(d.call("POST", control.PathAuditVerify, control.AuditCheck{Keys: &keys, Since: []string{strings.TrimSpace(checkpoint)}}, &v))
	if !v.OK || v.Signed == 0 || len(v.Keys) != 2 {
		t.Errorf("verdict %+v", v)
	}
	other := control.AuditKeys{Ed25519: bytes.Repeat([]byte{1}, len(keys.Ed25519)), MLDSA65: keys.MLDSA65}
	d.must(d.call("POST", control.PathAuditVerify, control.AuditCheck{Keys: &other}, &v))
	if v.OK || v.Record != 1 {
		t.Errorf("other keys: %+v", v)
	}
	for name, check := range map[string]control.AuditCheck{"no key": {Keys: &control.AuditKeys{}}, "no checkpoint": {Since: []string{"x"}}} {
		if err := d.call("POST", control.PathAuditVerify, check, &v); err == nil || err.(*control.Error).Code != control.CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The audit says by what a session was suspended, and its event names the session, the authority and the secret.
func TestAuditSuspension(t *testing.T) {
	d, s, stream := opened(t, parrot(nil), control.Limits{})
	_, _, _ = stream().ask(get("/"), "")
	_, found := d.text("POST", control.PathAuditQuery, `{"event":"reflection"}`)
	for _, want := range []string{`"session":"` + s.ID, `"authority":"example.com:443"`, `"secret":`, `"reason":"reflection"`} {
		if !strings.Contains(found, want) {
			t.Errorf("no %s in %s", want, found)
		}
	}
	if strings.Contains(found, testKey) {
		t.Error("the secret is in it")
	}
}
