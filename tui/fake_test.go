package tui

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cloudflare/circl/hpke"

	"torno.internal/protocol/control"
	"torno.internal/protocol/seal"
	"torno.internal/protocol/secret"
)

// noon is what every clock says.
var noon = time.Date(2026, 3, 14, 12, 0, 0, 0, time.UTC)

func TestMain(m *testing.M) {
	time.Local = time.UTC
	os.Exit(m.Run())
}

// A fakeServer answers on a real Unix socket as a broker does.
type fakeServer struct {
	socket string

	mu       sync.Mutex
	http     *http.Server
	health   control.Health
	secrets  []control.SecretInfo
	sessions []control.SessionInfo
	waiting  []control.Approval
	records  []control.AuditRecord
	asked    []string               // "METHOD path"
	stored   []control.SealedSecret // that were set
	decided  []control.ApprovalDecision
	refuse   map[string]*control.Error // by "METHOD path"
	hang     chan struct{}             // answers wait for it, if it is not nil
	more     chan control.AuditRecord
	nudge    chan struct{} // an event
}

func newFakeServer(t *testing.T) *fakeServer {
	t.Helper()
	dir, err := os.MkdirTemp("", "tui") // short, for the socket's path
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeServer{socket: filepath.Join(dir, "control"), refuse: map[string]*control.Error{}, more: make(chan control.AuditRecord), nudge: make(chan struct{})}
	f.start(t)
	t.Cleanup(func() { f.stop(); os.RemoveAll(dir) })
	return f
}

func (f *fakeServer) start(t *testing.T) {
	t.Helper()
	ln, err := net.Listen("unix", f.socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: f}
	f.mu.Lock()
	f.http = s
	f.mu.Unlock()
	go func() { _ = s.Serve(ln) }()
}

// stop ends the server and cuts what it has open.
func (f *fakeServer) stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	_ = f.http.Close()
	_ = os.Remove(f.socket)
}

func (f *fakeServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	hang := f.hang
	f.mu.Unlock()
	if hang != nil {
		select {
		case <-hang:
		case <-r.Context().Done():
			return
		}
	}
	switch r.URL.Path {
	case control.PathAudit:
		f.follow(w, r)
		return
	case control.PathEvents:
		f.events(w, r)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	what := r.Method + " " + r.URL.Path
	f.asked = append(f.asked, what)
	if e := f.refuse[what]; e != nil {
		w.WriteHeader(http.StatusConflict)
		_ = json.NewEncoder(w).Encode(e)
		return
	}
	_ = json.NewEncoder(w).Encode(f.answer(what, r))
}

func (f *fakeServer) answer(what string, r *http.Request) any {
	switch what {
	case "GET " + control.PathHealth:
		return f.health
	case "GET " + control.PathKey:
		return control.KeyInfo{ID: "6f1d2c3b4a596877", Protected: "none"}
	case "GET " + control.PathPresets:
		return []control.Preset{{
			Name: "anthropic", Keys: []string{"ANTHROPIC_API_KEY"}, Service: "Anthropic API", Prefix: []string{"sk-ant-api03-"},
			Audience: []string{"https://api.anthropic.com"},
			Inject:   control.Injector{Scheme: control.SchemeHeader, Fields: []control.FieldTemplate{{Name: "x-api-key", Value: "{ANTHROPIC_API_KEY}"}}},
		}}
	case "GET " + control.PathSecrets:
		return f.secrets
	case "GET " + control.PathSessions:
		return f.sessions
	case "GET " + control.PathApprovals:
		return f.waiting
	case "POST " + control.PathApprovals:
		var d control.ApprovalDecision
		_ = json.NewDecoder(r.Body).Decode(&d)
		f.decided = append(f.decided, d)
		f.waiting = slices.DeleteFunc(f.waiting, func(a control.Approval) bool { return a.ID == d.ID })
	case "GET " + control.PathHistory:
		return f.history(r.FormValue("agent"), r.FormValue("name"))
	case "POST " + control.PathSecrets:
		var sealed []control.SealedSecret
		_ = json.NewDecoder(r.Body).Decode(&sealed)
		f.stored = append(f.stored, sealed...)
		for _, s := range sealed {
			f.secrets = append(f.secrets, control.SecretInfo{Meta: s.Meta})
		}
	case "POST " + control.PathStore + "/verify":
		return control.StoreVerdict{OK: true, Commit: 41, Secrets: 4}
	case "GET " + control.PathAuditKeys:
		return control.AuditKeys{}
	case "POST " + control.PathAuditVerify:
		return control.AuditVerdict{OK: true, First: 1, Last: 99, Records: 99}
	}
	return struct{}{}
}

// follow answers with the records, all at once, and those that come.
func (f *fakeServer) follow(w http.ResponseWriter, r *http.Request) {
	var all bytes.Buffer
	f.mu.Lock()
	for _, rec := range f.records {
		_ = json.NewEncoder(&all).Encode(rec)
	}
	f.mu.Unlock()
	_, _ = w.Write(all.Bytes())
	w.(http.Flusher).Flush()
	for {
		select {
		case rec := <-f.more:
			f.mu.Lock()
			f.records = append(f.records, rec)
			f.mu.Unlock()
			_ = json.NewEncoder(w).Encode(rec)
			w.(http.Flusher).Flush()
		case <-r.Context().Done():
			return
		}
	}
}

// history makes up the versions before the newest.
func (f *fakeServer) history(agent, name string) []control.SecretVersion {
	var all []control.SecretVersion
	for _, i := range f.secrets {
		if i.Agent != agent || i.Name != name {
			continue
		}
		for v := range i.Version {
			m := i.Meta
			m.Version, m.Created = v+1, m.Created.Add(-time.Duration(i.Version-v-1)*30*24*time.Hour)
			all = append(all, control.SecretVersion{Meta: m, State: control.VersionSuperseded, Uses: uint64(100 * (v + 1))})
		}
		all[len(all)-1].State, all[len(all)-1].Sessions = control.VersionCurrent, 1
	}
	return all
}

// events tells that something happens each time that the server is nudged.
func (f *fakeServer) events(w http.ResponseWriter, r *http.Request) {
	for kind := control.EventStream; ; kind = control.EventSession {
		_ = json.NewEncoder(w).Encode(control.Event{Kind: kind})
		w.(http.Flusher).Flush()
		select {
		case <-f.nudge:
		case <-r.Context().Done():
			return
		}
	}
}

// was reports whether the server was asked for what.
func (f *fakeServer) was(what string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range f.asked {
		if a == what {
			return true
		}
	}
	return false
}

// A fakeBroker asks a fakeServer, as the command's client asks the broker.
type fakeBroker struct {
	http *http.Client
	key  seal.PublicKey
	id   string
}

func newFakeBroker(t *testing.T, socket string) *fakeBroker {
	t.Helper()
	pub, _, err := hpke.KEM_XWING.Scheme().GenerateKeyPair()
	if err != nil {
		t.Fatal(err)
	}
	b, err := pub.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	key, err := seal.ParsePublicKey(b)
	if err != nil {
		t.Fatal(err)
	}
	return &fakeBroker{key: key, id: key.ID(), http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}}
}

func (b *fakeBroker) Do(ctx context.Context, method, path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	resp, err := b.send(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(out)
}

func (b *fakeBroker) send(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://torno"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := b.http.Do(req)
	if err != nil {
		return nil, errors.New("no broker answers")
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	var e control.Error
	if err := json.NewDecoder(resp.Body).Decode(&e); err != nil {
		return nil, err
	}
	return nil, &e
}

func (b *fakeBroker) Follow(ctx context.Context, path string) (io.ReadCloser, error) {
	resp, err := b.send(ctx, "GET", path, nil)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

func (b *fakeBroker) Set(ctx context.Context, m control.Meta, v secret.Value) (control.Meta, error) {
	m.Version = 1
	var sealed []byte
	err := v.Use(func(p []byte) (err error) {
		sealed, err = b.key.Seal(p, control.AssociatedData(m, b.id))
		return err
	})
	if err != nil {
		return m, err
	}
	return m, b.Do(ctx, "POST", control.PathSecrets, []control.SealedSecret{{Meta: m, KeyID: b.id, Sealed: sealed}}, nil)
}
