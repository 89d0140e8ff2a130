package broker

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// A shelf is the plugin testdata/shelf, and the directory that it reads.
type shelf struct {
	t       testing.TB
	program string
	dir     string
	log     *syncBuffer // of the broker
}

// syncBuffer is a bytes.Buffer for several writers.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func newShelf(t testing.TB) *shelf {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "shelf") // which plugins, who are somebody else, can reach
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &shelf{t: t, dir: filepath.Join(dir, "secrets"), program: filepath.Join(dir, "plugin"), log: &syncBuffer{}}
	for _, d := range []string{dir, s.dir} {
		if err := os.MkdirAll(d, 0o755); err == nil {
			err = os.Chmod(d, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "build", "-o", s.program, "./testdata/shelf")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return s
}

// declare declares the plugin, as a source or a signer.
func (s *shelf) declare(kind string) control.Plugin {
	b, err := os.ReadFile(s.program)
	if err != nil {
		s.t.Fatal(err)
	}
	sum := sha256.Sum256(b)
	return control.Plugin{
		Kind: kind, Path: s.program, SHA256: hex.EncodeToString(sum[:]), Paths: []string{s.dir}, TimeoutSeconds: 3,
		Env: map[string]string{"SHELF": s.dir},
	}
}

// put puts a secret on the shelf.
func (s *shelf) put(ref, value, version string, seconds int, fault string) {
	s.t.Helper()
	b, err := json.Marshal(map[string]any{"Value": value, "Version": version, "Seconds": seconds, "Fault": fault})
	if err == nil {
		err = os.WriteFile(filepath.Join(s.dir, ref+".new"), b, 0o644)
	}
	if err == nil {
		err = os.Rename(filepath.Join(s.dir, ref+".new"), filepath.Join(s.dir, ref))
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *shelf) remove(ref string) {
	if err := os.Remove(filepath.Join(s.dir, ref)); err != nil {
		s.t.Fatal(err)
	}
}

// desk starts a broker with the plugin.
func (s *shelf) desk(up *httptest.Server) *desk {
	d := newDesk(s.t, up)
	d.stop()
	d.cfg.Operator.Plugins = map[string]control.Plugin{"shelf": s.declare(control.PluginSource), "signer": s.declare(control.PluginSigner)}
	d.cfg.Log = slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	d.start()
	return d
}

// sourced is a bearer secret of agent a that is kept elsewhere.
func sourced(name, source string, rotation control.Rotation) control.Meta {
	m := bearerOf(name, 1, rotation)
	m.Source = source
	return m
}

// becomes waits until what p says is that.
func becomes(t *testing.T, what string, p *peer, wanted string) {
	t.Helper()
	got := ""
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if got = p.says(); got == wanted {
			return
		}
	}
	t.Errorf("%s: %q, want %q", what, got, wanted)
}

// eventsOf returns the audit's events of one kind.
func (d *desk) eventsOf(event string) []control.AuditRecord {
	var all []control.AuditRecord
	for _, r := range d.records("event") {
		if r.Event == event {
			all = append(all, r)
		}
	}
	return all
}

func TestSourcedSecret(t *testing.T) {
	up := httptest.NewTLSServer(http.HandlerFunc(whose))
	defer up.Close()
	s := newShelf(t)
	for _, rotation := range []control.Rotation{control.RotationPin, control.RotationFollow} {
		s.put("key", keyOf(1), "v1", 0, "")
		d := s.desk(up)
		d.must(d.setMeta(sourced("KEY", "shelf:key", rotation), "shelf:key"))
		session, stream := d.enter()
		p := stream()
		want(t, "at the beginning", p.says(), "1")
		s.put("key", keyOf(2), "v2", 0, "")
		running := map[control.Rotation]string{control.RotationPin: "1", control.RotationFollow: "2"}[rotation]
		if rotation == control.RotationFollow {
			becomes(t, "after a change at the source", p, "2")
		} else {
			time.Sleep(3 * time.Second)
			want(t, "pinned", p.says(), "1")
		}
		_, later := d.enter()
		becomes(t, "a new session", later(), "2")
		var i control.SessionInfo
		d.must(d.call("GET", control.PathSession+session.ID, nil, &i))
		want(t, "sessions show", i.Secrets[0].Source+" "+i.Secrets[0].Fetched, "shelf:key v"+running)
		fetched := map[string]bool{}
		for _, r := range d.records("begin") {
			if r.Session == session.ID {
				fetched[r.Fetched] = true
			}
		}
		if !fetched["v1"] || fetched["v2"] != (running == "2") {
			t.Errorf("%s: the audit has %v", rotation, fetched)
		}
		if all := d.eventsOf("session_secret_fetched"); len(all) == 0 || all[0].Plugin != "shelf" || all[0].Secret != "KEY" {
			t.Errorf("%+v", all)
		}
		d.stop()
		d.start()
		becomes(t, "after a restart", stream(), "2") // nothing of it was kept
		d.stop()
		for n := range 3 {
			if strings.Contains(s.log.String(), keyOf(n)) {
				t.Errorf("key %d stands in the broker's log", n)
			}
		}
	}
}

// TestSourcedExpiry has a lease be renewed, end, and a version be taken away.
func TestSourcedExpiry(t *testing.T) {
	up := httptest.NewTLSServer(http.HandlerFunc(whose))
	defer up.Close()
	s := newShelf(t)
	s.put("key", keyOf(1), "v1", 4, "")
	d := s.desk(up)
	d.must(d.setMeta(sourced("KEY", "shelf:key", control.RotationFollow), "shelf:key"))
	_, stream := d.enter()
	p := stream()
	for deadline := time.Now().Add(8 * time.Second); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		want(t, "a lease that is renewed", p.says(), "1")
	}
	s.put("key", keyOf(1), "v1", 4, "denied")
	becomes(t, "access that is taken away", p, "credential_unavailable")
	s.put("key", keyOf(2), "v2", 0, "")
	becomes(t, "and given again", p, "2")
	s.remove("key")
	becomes(t, "a secret that is deleted", p, "credential_unavailable")
}

// TestAttack26GoneAtTheSource has a WebSocket and an upload open when their secret is taken away where it is kept: they are cut,
// as they are for a secret that is revoked here.
func TestAttack26GoneAtTheSource(t *testing.T) {
	up := newTap(t)
	s := newShelf(t)
	s.put("key", keyOf(1), "v1", 0, "")
	d := s.desk(up.Server)
	d.must(d.setMeta(sourced("KEY", "shelf:key", control.RotationFollow), "shelf:key"))
	_, stream := d.enter()
	p := stream()
	want(t, "before", p.says(), "1")
	ends := make(chan ending, 2)
	for _, kind := range []string{"WebSocket", "SSE stream"} {
		opening(t, kind, 0, stream(), ends)
		<-up.open
	}
	s.remove("key")
	becomes(t, "a secret that is deleted", p, "credential_unavailable")
	gone := time.Now()
	for range 2 {
		select {
		case e := <-ends:
			if e.err == nil || e.at.Sub(gone) > protocol.RevokeDeadline {
				t.Errorf("%s: ended %v after that: %v", e.kind, e.at.Sub(gone), e.err)
			}
		case <-time.After(15 * time.Second):
			t.Fatal("something is open still")
		}
	}
}

// TestAttack26LeaseEnds has what is open cut when a lease ends, in a session that keeps to its version, and not where it was renewed.
func TestAttack26LeaseEnds(t *testing.T) {
	up := newTap(t)
	s := newShelf(t)
	s.put("key", keyOf(1), "v1", 6, "")
	d := s.desk(up.Server)
	d.must(d.setMeta(sourced("KEY", "shelf:key", control.RotationPin), "shelf:key"))
	begun := time.Now()
	_, stream := d.enter()
	want(t, "before", stream().says(), "1")
	ends := make(chan ending, 2)
	for _, kind := range []string{"WebSocket", "SSE stream"} {
		opening(t, kind, 0, stream(), ends)
		<-up.open
	}
	select {
	case e := <-ends:
		t.Fatalf("%s: ended after %v, and was renewed: %v", e.kind, e.at.Sub(begun), e.err)
	case <-time.After(8 * time.Second):
	}
	s.put("key", keyOf(1), "v1", 6, "error")
	becomes(t, "a lease that ended", stream(), "expired")
	gone := time.Now()
	for range 2 {
		select {
		case e := <-ends:
			if e.err == nil || e.at.Sub(gone) > protocol.RevokeDeadline {
				t.Errorf("%s: ended %v after that: %v", e.kind, e.at.Sub(gone), e.err)
			}
		case <-time.After(15 * time.Second):
			t.Fatal("something is open still")
		}
	}
}

// TestAttack33Exchange has a plugin misbehave under requests: each is refused with a reason, recorded, the session lives
// on, and nothing of the secret is in any log.
func TestAttack33Exchange(t *testing.T) {
	up := httptest.NewTLSServer(http.HandlerFunc(whose))
	defer up.Close()
	s := newShelf(t)
	for fault, code := range map[string]string{
		"crash": "crashed", "hang": "timeout", "flood": "flooded", "panic": "crashed", "huge": "bad_answer", "denied": "denied",
		"error": "failed", "newline": "credential_unavailable",
	} {
		t.Run(fault, func(t *testing.T) {
			s.put("key", keyOf(3), "v1", 0, fault)
			s.put("other", keyOf(4), "v1", 0, "")
			d := s.desk(up)
			d.must(d.setMeta(sourced("KEY", "shelf:key", control.RotationFollow), "shelf:key"))
			session, stream := d.enter()
			if len(session.Warnings) != 1 || !strings.HasPrefix(session.Warnings[0], "KEY: ") {
				t.Errorf("warnings %q", session.Warnings)
			}
			p := stream()
			want(t, "a request that needs it", p.says(), "credential_unavailable")
			refused := false
			for _, r := range d.records("refused") {
				refused = refused || r.Session == session.ID && r.Reason == protocol.ReasonCredential.String()
			}
			if !refused {
				t.Error("the refusal is not recorded")
			}
			all := d.eventsOf("session_secret_not_fetched")
			if len(all) == 0 || all[0].Reason != code || all[0].Plugin != "shelf" {
				t.Errorf("%+v, want %s", all, code)
			}
			var i control.SessionInfo
			d.must(d.call("GET", control.PathSession+session.ID, nil, &i))
			if i.State != "live" || i.Secrets[0].Problem == "" {
				t.Errorf("the session is %s, %+v", i.State, i.Secrets)
			}
			s.put("key", keyOf(3), "v2", 0, "")
			becomes(t, "once it behaves", p, "3")
			audit := d.auditText()
			d.stop()
			for name, text := range map[string]string{"log": s.log.String(), "audit": audit} {
				if strings.Contains(text, keyOf(3)) || strings.Contains(text, keyOf(3)[5:20]) {
					t.Errorf("the secret stands in the %s", name)
				}
			}
		})
	}
}

// TestSourcedScrubbed has a host repeat what was fetched, also the version before.
func TestSourcedScrubbed(t *testing.T) {
	up := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "you sent %s, and before %s", r.Header.Get("Authorization"), keyOf(1))
	}))
	defer up.Close()
	s := newShelf(t)
	s.put("key", keyOf(1), "", 0, "")
	d := s.desk(up)
	d.must(d.setMeta(sourced("KEY", "shelf:key", control.RotationFollow), "shelf:key"))
	_, stream := d.enter()
	p := stream()
	check := func(what string) bool {
		got := p.says()
		if strings.Contains(got, keyOf(1)[8:]) || strings.Contains(got, keyOf(2)[8:]) {
			t.Fatalf("%s: %q", what, got)
		}
		return strings.HasPrefix(got, "you sent Bearer ")
	}
	if !check("the first") {
		t.Error("no answer")
	}
	s.put("key", keyOf(2), "", 0, "")
	for deadline := time.Now().Add(3 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		check("the second")
	}
}

// TestSourcedSet refuses what could not work when it is set.
func TestSourcedSet(t *testing.T) {
	s := newShelf(t)
	d := s.desk(nil)
	for name, m := range map[string]control.Meta{
		"no such plugin":                  sourced("KEY", "vault:key", ""),
		"a signer for what does not sign": sourced("KEY", "signer:key", ""),
		"another place":                   sourced("KEY", "shelf:other", ""),
		"no place":                        sourced("KEY", "shelf", ""),
	} {
		if err := d.setMeta(m, "shelf:key"); err == nil {
			t.Errorf("%s: set", name)
		} else {
			t.Log(err)
		}
	}
	m := sourced("KEY", "shelf:key", "")
	m.Inject = control.Injector{Scheme: control.SchemeRefresh, Params: []control.Param{{Name: "id", Value: "i"}, {Name: "token", Value: "https://id.example/token"}}}
	if err := d.setMeta(m, "shelf:key"); err == nil {
		t.Error("a refresh token that is kept elsewhere: set")
	}
	exposed := control.Meta{Agent: "a", Name: "SHOWN", Version: 1, Expose: control.ExposeEnv, Source: "shelf:shown"}
	d.must(d.setMeta(exposed, "shelf:shown"))
	if err := d.call("POST", control.PathSessions, requestOf("a"), nil); err == nil || !strings.Contains(err.Error(), "SHOWN") {
		t.Errorf("a session whose variable is not there: %v", err)
	}
	s.put("shown", "visible-to-the-workload", "", 0, "")
	var created control.SessionCreated
	var err error
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(500 * time.Millisecond) {
		if err = d.call("POST", control.PathSessions, requestOf("a"), &created); err == nil {
			break
		}
	}
	d.must(err)
	h, err := d.hello(created.Broker, 1)
	d.must(err)
	if !strings.Contains(strings.Join(h.Env, " "), "SHOWN=visible-to-the-workload") {
		t.Errorf("%q", h.Env)
	}
}

// requestOf asks for a session of an agent.
func requestOf(agent string) control.SessionRequest {
	return control.SessionRequest{Agent: agent, Isolation: protocol.IsolationNamespace, Workload: protocol.Workload{Argv: []string{"true"}}}
}

func TestPluginControl(t *testing.T) {
	s := newShelf(t)
	s.put("key", keyOf(1), "v1", 60, "")
	d := s.desk(nil)
	var infos []control.PluginInfo
	d.must(d.call("GET", control.PathPlugins, nil, &infos))
	if len(infos) != 2 || infos[0].Name != "shelf" || infos[0].Binary != control.BinaryOK || infos[0].State != control.PluginIdle {
		t.Errorf("%+v", infos)
	}
	var r control.PluginReport
	d.must(d.call("POST", control.PathPluginCheck, control.PluginCheck{Name: "shelf", Ref: "key"}, &r))
	if !r.OK || !strings.Contains(r.Output, "the secret is") || strings.Contains(fmt.Sprint(r), keyOf(1)) {
		t.Errorf("%+v", r)
	}
	if err := d.call("POST", control.PathPluginCheck, control.PluginCheck{Name: "other"}, &r); err == nil || err.(*control.Error).Code != control.CodeNotFound {
		t.Error(err)
	}
}

// TestSignedElsewhere has requests signed by a plugin that keeps the key, and verifies them upstream.
func TestSignedElsewhere(t *testing.T) {
	const key = "a-key-that-torno-never-has"
	up := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		params, ok := strings.CutPrefix(r.Header.Get("Signature-Input"), "sig1=")
		if !ok || !strings.HasPrefix(params, `("@method" "@authority" "@path" "@query")`) {
			fmt.Fprintf(w, "signed: %q", params)
			return
		}
		base := fmt.Sprintf("\"@method\": %s\n\"@authority\": %s\n\"@path\": %s\n\"@query\": ?%s\n\"@signature-params\": %s", r.Method, r.Host, r.URL.Path, r.URL.RawQuery, params)
		m := hmac.New(sha256.New, []byte(key))
		m.Write([]byte(base))
		if r.Header.Get("Signature") != "sig1=:"+base64.StdEncoding.EncodeToString(m.Sum(nil))+":" {
			fmt.Fprint(w, "the signature is wrong")
			return
		}
		fmt.Fprint(w, "verified")
	}))
	defer up.Close()
	s := newShelf(t)
	s.put("k", key, "", 0, "")
	d := s.desk(up)
	m := sourced("KEY", "signer:k", "")
	m.Inject = control.Injector{Scheme: control.SchemeMessage, Params: []control.Param{{Name: "alg", Value: "hmac-sha256"}, {Name: "keyid", Value: "k"}}}
	d.must(d.setMeta(m, "signer:k"))
	_, stream := d.enter()
	p := stream()
	anew := func(what, wanted string) { // a request that fails ends its stream
		t.Helper()
		got := ""
		for deadline := time.Now().Add(20 * time.Second); got != wanted && time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
			got = stream().says()
		}
		want(t, what, got, wanted)
	}
	want(t, "a request", p.says(), "verified")
	s.put("k", key, "", 0, "crash")
	want(t, "a signer that crashes", p.says(), "credential_unavailable")
	s.put("k", key, "", 0, "")
	anew("once it is back", "verified")
	s.remove("k")
	anew("a key that is not there", "credential_unavailable")
	d.stop()
	if strings.Contains(s.log.String(), key) {
		t.Error("the key stands in the log")
	}
	sigV4 := m
	sigV4.Name, sigV4.Inject = "AWS", control.Injector{Scheme: control.SchemeSigV4}
	d.start()
	if err := d.setMeta(sigV4, "signer:k"); err == nil {
		t.Error("a scheme that wants the key itself: set")
	}
}
