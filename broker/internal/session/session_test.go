package session

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// memory keeps records as a store does, and fails when told to.
type memory struct {
	mu     sync.Mutex
	kept   map[string][]byte
	puts   int
	broken error
}

func newMemory() *memory { return &memory{kept: map[string][]byte{}} }

func (m *memory) PutSession(id string, b []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.broken != nil {
		return m.broken
	}
	m.puts++
	m.kept[id] = slices.Clone(b)
	return nil
}

func (m *memory) Session(id string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok := m.kept[id]
	if !ok {
		return nil, errors.New("not found")
	}
	return slices.Clone(b), nil
}

func (m *memory) Sessions() ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Keys(m.kept)), m.broken
}

func (m *memory) DeleteSession(id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.kept, id)
	return nil
}

func request() Request {
	uid := uint32(4711)
	return Request{
		SessionRequest: control.SessionRequest{
			Agent: "my-agent", Isolation: protocol.IsolationNamespace, PeerUID: &uid,
			RunToken: []byte(strings.Repeat("r", protocol.TokenSize)),
			Workload: protocol.Workload{Argv: []string{"python3", "agent.py"}, Env: []string{"TERM=xterm"}, TTY: true},
		},
		Policy: control.AgentPolicy{Name: "my-agent", Egress: control.Egress{Allow: []string{"GET *.example.org"}}},
		Secrets: []control.SecretUse{
			{Name: "ANTHROPIC_API_KEY", Version: 2, Placeholder: true},
			{Name: "DATABASE_URL", Version: 1, Expose: control.ExposeEnv},
			{Name: "OTHER", Version: 7},
		},
	}
}

func newTestSession(t testing.TB, records Records) *Session {
	t.Helper()
	s, _, err := New(records, request())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func reload(t *testing.T, records Records, s *Session) *Session {
	t.Helper()
	again, err := Load(records, s.ID())
	if err != nil {
		t.Fatal(err)
	}
	return again
}

func TestNew(t *testing.T) {
	m := newMemory()
	s := newTestSession(t, m)
	if s.Agent() != "my-agent" || s.PeerUID() != 4711 || !s.Live() || s.HelloUsed() || s.State() != StateWaiting {
		t.Errorf("new session: %+v", s.Info())
	}
	p := s.Placeholder("ANTHROPIC_API_KEY")
	if !strings.HasPrefix(p, "sk-ant-api03-"+control.PlaceholderMark) || s.Placeholder("OTHER") != "" || s.Placeholder("DATABASE_URL") != "" {
		t.Errorf("placeholders %q", s.Placeholders())
	}
	if other := newTestSession(t, m); other.Placeholder("ANTHROPIC_API_KEY") == p || other.ID() == s.ID() {
		t.Error("two sessions share a placeholder or an id")
	}
	w := s.Workload()
	w.Argv[0] = "changed"
	if s.Workload().Argv[0] != "python3" || s.Workload().User != protocol.UserAgent {
		t.Errorf("workload %+v", s.Workload())
	}
}

func TestNewDefaultsPeer(t *testing.T) {
	req := request()
	req.PeerUID, req.RunToken = nil, nil
	s, _, err := New(newMemory(), req)
	if err != nil || int(s.PeerUID()) != os.Geteuid() || len(s.RunToken()) != 0 {
		t.Errorf("New = %v, uid %d, run token %d bytes", err, s.PeerUID(), len(s.RunToken()))
	}
}

func TestNewRefuses(t *testing.T) {
	tests := map[string]func(*Request){
		"agent":                  func(r *Request) { r.Agent = "../x" },
		"isolation":              func(r *Request) { r.Isolation = "none" },
		"short run token":        func(r *Request) { r.RunToken = []byte("r") },
		"user":                   func(r *Request) { r.Workload.User = "nobody" },
		"placeholder of exposed": func(r *Request) { r.Secrets[1].Placeholder = true },
	}
	for name, change := range tests {
		m := newMemory()
		req := request()
		change(&req)
		if s, _, err := New(m, req); err == nil || s != nil || len(m.kept) > 0 {
			t.Errorf("%s: New = %v, %v; want an error", name, s, err)
		}
	}
	if s, _, err := New(&memory{broken: errors.New("disk full")}, request()); err == nil || s != nil {
		t.Errorf("nothing stored: New = %v, %v", s, err)
	}
}

// TestRestart holds that a broker which starts again serves the same session.
func TestRestart(t *testing.T) {
	m := newMemory()
	s := newTestSession(t, m)
	s.Count(Counters{Requests: 3, BytesUp: 10})
	if _, err := s.Hello(nonce(1)); err != nil {
		t.Fatal(err)
	}
	again := reload(t, m, s)
	if diff := cmp.Diff(s.Info(), again.Info()); diff != "" {
		t.Errorf("info: %s", diff)
	}
	for name, pair := range map[string][2]any{
		"policy":       {s.Policy(), again.Policy()},
		"secrets":      {s.Secrets(), again.Secrets()},
		"placeholders": {s.Placeholders(), again.Placeholders()},
		"workload":     {s.Workload(), again.Workload()},
		"run token":    {s.RunToken(), again.RunToken()},
		"ca":           {s.CAPEM(), again.CAPEM()},
		"expires":      {s.Expires(), again.Expires()},
		"peer":         {s.PeerUID(), again.PeerUID()},
		"isolation":    {s.Isolation(), again.Isolation()},
	} {
		if diff := cmp.Diff(pair[0], pair[1]); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestEnd(t *testing.T) {
	for _, state := range []State{StateEnded, StateRevoked} {
		m := newMemory()
		s := newTestSession(t, m)
		token, err := s.Hello(nonce(1))
		if err != nil {
			t.Fatal(err)
		}
		end := map[State]func() error{StateEnded: s.End, StateRevoked: s.Revoke}[state]
		if err := end(); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(s.End(), s.Revoke()); err != nil {
			t.Fatalf("ending twice: %v", err)
		}
		for name, s := range map[string]*Session{"in memory": s, "on record": reload(t, m, s)} {
			if s.State() != state || s.Live() || s.Info().Ended == nil || len(s.RunToken()) != 0 {
				t.Errorf("%s: %+v, want %s", name, s.Info(), state)
			}
			if _, err := s.Hello(nonce(1)); !errors.Is(err, ErrEnded) {
				t.Errorf("%s: hello: %v", name, err)
			}
			if err := s.UseToken(token); !errors.Is(err, ErrEnded) {
				t.Errorf("%s: token: %v", name, err)
			}
			if _, _, err := s.IssueLeaf("example.org", leafKey(t)); reasonOf(err) != protocol.ReasonSessionEnded {
				t.Errorf("%s: leaf: %v", name, err)
			}
		}
		var kept map[string]any
		if err := json.Unmarshal(m.kept[s.ID()], &kept); err != nil {
			t.Fatal(err)
		}
		for _, key := range []string{"ca_key", "run_token", "nonce", "token", "token_hash"} {
			if kept[key] != nil {
				t.Errorf("the record of an ended session holds %s", key)
			}
		}
	}
}

func TestEndHoldsUnstored(t *testing.T) {
	m := newMemory()
	s := newTestSession(t, m)
	m.broken = errors.New("disk full")
	if err := s.Revoke(); err == nil || s.Live() {
		t.Errorf("Revoke = %v, live %v; want an error and an end", err, s.Live())
	}
	m.broken = nil
	if err := s.Revoke(); err != nil || reload(t, m, s).State() != StateRevoked {
		t.Errorf("Revoke again = %v", err)
	}
}

func TestExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTestSession(t, newMemory())
		token, err := s.Hello(nonce(1))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(protocol.SessionLifetime - time.Second)
		if err := s.UseToken(token); err != nil || !s.Live() {
			t.Errorf("a second before the end: %v", err)
		}
		time.Sleep(time.Second)
		if err := s.UseToken(token); !errors.Is(err, ErrEnded) || s.State() != StateEnded {
			t.Errorf("at the end: %v, %s", err, s.State())
		}
	})
}

func TestAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		var want []string
		for range 3 {
			want = append(want, newTestSession(t, m).ID())
			time.Sleep(time.Millisecond)
		}
		ended := newTestSession(t, m)
		if err := ended.End(); err != nil {
			t.Fatal(err)
		}
		m.kept["broken"] = []byte("{}")
		ids := func() (ids []string) {
			all, err := All(m)
			if err == nil || !strings.Contains(err.Error(), `"broken"`) {
				t.Errorf("All: %v, want an error that names the broken one", err)
			}
			for _, s := range all {
				ids = append(ids, s.ID())
			}
			return ids
		}
		if diff := cmp.Diff(append(slices.Clone(want), ended.ID()), ids()); diff != "" {
			t.Error(diff)
		}
		time.Sleep(Retention + time.Second)
		if diff := cmp.Diff(want, ids()); diff != "" {
			t.Error(diff)
		}
		if _, err := Load(m, ended.ID()); err == nil {
			t.Error("a session that ended long ago is still on record")
		}
		time.Sleep(protocol.SessionLifetime + Retention)
		if got := ids(); len(got) != 0 {
			t.Errorf("sessions that expired long ago are still there: %q", got)
		}
	})
}

func TestRecordRefused(t *testing.T) {
	m := newMemory()
	s := newTestSession(t, m)
	if _, err := s.Hello(nonce(1)); err != nil {
		t.Fatal(err)
	}
	other := newTestSession(t, m)
	good := string(m.kept[s.ID()])
	change := func(key string, value any) string {
		var r map[string]any
		if err := json.Unmarshal([]byte(good), &r); err != nil {
			t.Fatal(err)
		}
		r[key] = value
		if value == nil {
			delete(r, key)
		}
		b, _ := json.Marshal(r)
		return string(b)
	}
	if _, err := decodeRecord(s.ID(), []byte(change("state", "live"))); err != nil {
		t.Fatalf("the test's own change: %v", err)
	}
	tests := map[string]string{
		"empty": "", "cut": good[:len(good)/2], "followed": good + "{}", "null": "null", "array": "[]",
		"format": change("format", 2), "unknown key": change("x", 1), "another id": change("id", other.ID()),
		"too many leaves": change("leaves", protocol.MaxLeaves+1), "negative leaves": change("leaves", -1),
		"unknown state": change("state", "x"), "ended without end": change("state", "ended"),
		"end without ended": change("ended", time.Now()), "waiting with a token": change("state", "waiting"),
		"live without a token": change("token_hash", nil), "token lost": change("token", nil), "short token": change("token", []byte{1}),
		"short nonce": change("nonce", []byte{1}), "used and kept": change("token_used", true),
		"no CA": change("ca", nil), "no key": change("ca_key", nil), "bad key": change("ca_key", []byte{1}),
		"another's key":      change("ca_key", other.rec.CAKey),
		"no socket of a VMM": change("socket", "unix:///p"), "loopback's CID": change("cid", 1), "hash without a CID": change("boot_hash", make([]byte, 32)),
	}
	for name, text := range tests {
		m.kept[s.ID()] = []byte(text)
		if got, err := Load(m, s.ID()); err == nil || got != nil {
			t.Errorf("%s: Load = %v, %v; want an error", name, got, err)
		}
	}
}

func TestPrintsNoKey(t *testing.T) {
	s := newTestSession(t, newMemory())
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "session", s)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "session", s)
	out := fmt.Sprintf("%v %+v %#v %s %d %x", s, s, s, s, s, s) + log.String()
	if want := strings.Repeat("session "+s.ID()+" ", 6); !strings.HasPrefix(out+" ", want[:len(want)-1]) || strings.Contains(out, "114 114") {
		t.Errorf("a session prints as %s", out)
	}
}

func TestID(t *testing.T) {
	now := time.UnixMilli(0x0123456789ab)
	id := newID(now)
	if len(id) != idSize || strings.Trim(id, crockford32) != "" || id[:10] != "014d2pf2db" {
		t.Errorf("id %q", id)
	}
	if later := newID(now.Add(time.Millisecond)); later <= id {
		t.Errorf("%q does not sort after %q", later, id)
	}
}
