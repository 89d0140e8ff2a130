package broker

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// setAs sets a secret for an audience, as --as says.
func (d *desk) setAs(agent, name, value, as string, version int, audience ...string) error {
	d.t.Helper()
	in, err := control.ParseScheme(as)
	d.must(err)
	return d.setMeta(control.Meta{Agent: agent, Name: name, Version: version, Audience: audience, Inject: in}, value)
}

// openedAs is opened for a secret that is set as --as says, with an upstream that speaks HTTP/2 as well.
func openedAs(t testing.TB, up http.Handler, as, value string) (*desk, func() *peer) {
	t.Helper()
	srv := httptest.NewUnstartedServer(up)
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	d := newDesk(t, srv)
	d.stop()
	d.cfg.Operator.Limits = generous
	d.start()
	d.must(d.setAs("a", "KEY", value, as, 1, "https://example.com"))
	s := d.session("a")
	h, err := d.hello(s.Broker, 1)
	d.must(err)
	return d, func() *peer {
		p, err := d.dial(s.Broker, protocol.KindForward, h.Token)
		d.must(err)
		return p
	}
}

// TestRowS18Schemes sends a request with each kind of credential over HTTP/1.1 and HTTP/2, beside one of the workload's own. What
// arrives is ours alone, what comes back is masked, and the audit has neither.
func TestRowS18Schemes(t *testing.T) {
	const own = "own-0a1b2c3d4e5f60718293"
	basic := func(plain string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(plain)) }
	tests := []struct {
		as, path, wantURI, wantAuth, wantCookie string
	}{
		{"bearer", "/v1?x=1", "/v1?x=1", "Bearer " + testKey, "a=1"},
		{"basic", "/v1", "/v1", basic("me:" + testKey), "a=1"},
		{"basic:user=you", "/v1", "/v1", basic("you:" + testKey), "a=1"},
		{"basic:template={KEY}:", "/v1", "/v1", basic(testKey + ":"), "a=1"},
		{"git", "/a/b.git/info/refs?service=git-upload-pack", "/a/b.git/info/refs?service=git-upload-pack", basic("me:" + testKey), ""},
		{"query:name=key", "/v1?x=1&k%65y=" + own, "/v1?x=1&key=" + testKey, "", "a=1"},
		{"path:template=/bot{KEY}/", "/bot" + own + "/send?x=1", "/bot" + testKey + "/send?x=1", "", "a=1"},
		{"cookie:name=sid", "/v1", "/v1", "", "sid=" + testKey + "; a=1"},
	}
	for _, tt := range tests {
		t.Run(tt.as, func(t *testing.T) {
			var got []string
			d, stream := openedAs(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				got = []string{r.RequestURI, strings.Join(r.Header.Values("Authorization"), "|"), strings.Join(r.Header.Values("Cookie"), "; ")}
				w.Header().Set("X-Echo", strings.Join(got, " "))
				fmt.Fprintf(w, "%s %q", r.Proto, got)
			}), tt.as, testKey)
			for _, version := range []string{"1", "2"} {
				cookie := protocol.Field{Name: "cookie", Value: "a=1"}
				if strings.HasPrefix(tt.as, "cookie") {
					cookie.Value += "; SID=" + own
				}
				req := get(tt.path, protocol.Field{Name: "torno-http", Value: version}, cookie,
					protocol.Field{Name: "authorization", Value: basic("me:" + own)}, protocol.Field{Name: "x-api-key", Value: own})
				resp, body, err := stream().ask(req, "")
				if err != nil || resp.Status != 200 || !strings.HasPrefix(body, "HTTP/"+version) {
					t.Fatalf("HTTP/%s: %d %q, %v", version, resp.Status, body, err)
				}
				if want := []string{tt.wantURI, tt.wantAuth, tt.wantCookie}; fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("HTTP/%s: arrived %q, want %q", version, got, want)
				}
				if leaks(body) || leaks(resp.Fields.Get("x-echo")) || !strings.Contains(body, "***") {
					t.Errorf("HTTP/%s: came back: %q %q", version, resp.Fields.Get("x-echo"), body)
				}
			}
			if log := d.auditText(); leaks(log) || strings.Contains(log, own) || !strings.Contains(log, `"secret":"KEY"`) {
				t.Errorf("audit: %s", log)
			}
		})
	}
}

// auditText returns the whole audit as it is served.
func (d *desk) auditText() string {
	d.t.Helper()
	resp, err := d.client.Get("http://torno" + control.PathAudit + "?last=1000")
	d.must(err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	d.must(err)
	return string(b)
}

// TestAttack17NoPlace asks for a path that could hold a credential of the workload's own: it does not arrive.
func TestAttack17NoPlace(t *testing.T) {
	arrived := 0
	_, stream := openedAs(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { arrived++ }), "path:template=/bot{KEY}/", testKey)
	for _, path := range []string{"/b%6ft123/send", "/file/bot123/x", "/"} {
		resp, _, err := stream().ask(get(path), "")
		if err != nil || resp.Fields.Get("torno-reason") != "no_place" {
			t.Errorf("%s: %v, %v", path, resp, err)
		}
	}
	if resp, _, err := stream().ask(get("/bot/send"), ""); err != nil || resp.Status != 200 || arrived != 1 {
		t.Errorf("the control: %v, %v; %d arrived", resp, err, arrived)
	}
}
