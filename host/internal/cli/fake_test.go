package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"torno.internal/protocol/control"
	"torno.internal/protocol/seal"
)

// A fakeBroker answers the control API from memory.
type fakeBroker struct {
	t     *testing.T
	key   seal.PrivateKey
	state string

	mu        sync.Mutex
	metas     []control.Meta
	values    map[string]string // by name, as opened
	conflicts int               // how many sets still to refuse
	meanwhile *control.Meta     // what somebody else has set when one is refused
	trusted   map[string]control.TrustedFile
	sessions  []control.SessionInfo
	asked     []string // method and path of each request
}

// newBroker starts a fake broker where the commands under test look for one.
func newBroker(t *testing.T) *fakeBroker {
	t.Helper()
	key, err := seal.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	b := &fakeBroker{t: t, key: key, values: map[string]string{}, trusted: map[string]control.TrustedFile{}}
	dir := places(t)
	b.state = filepath.Join(dir, "state")
	ln, err := net.Listen("unix", filepath.Join(dir, "torno", control.SocketName))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(ln.Addr().String(), 0o600); err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(b)
	s.Listener = ln
	s.Start()
	t.Cleanup(s.Close)
	return b
}

// places points the commands under test to a temporary directory, which it returns.
func places(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "tc") // short, for the socket's path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Mkdir(filepath.Join(dir, "torno"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("XDG_RUNTIME_DIR", dir)
	t.Setenv("TORNO_STATE", filepath.Join(dir, "state"))
	return dir
}

func (b *fakeBroker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked = append(b.asked, r.Method+" "+r.URL.Path)
	v, err := b.answer(r)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		v = err
	}
	if err := json.NewEncoder(w).Encode(v); err != nil {
		b.t.Error(err)
	}
}

func (b *fakeBroker) answer(r *http.Request) (any, *control.Error) {
	agent, name := r.FormValue("agent"), r.FormValue("name")
	switch r.Method + " " + r.URL.Path {
	case "GET " + control.PathHealth:
		return control.Health{Version: "fake", Protocol: 1, PID: os.Getpid(), StateDir: b.state}, nil
	case "GET " + control.PathPublicKey:
		k := b.key.Public()
		return control.PublicKey{ID: k.ID(), Key: k.Bytes()}, nil
	case "GET " + control.PathPresets:
		return fakePresets(name), nil
	case "GET " + control.PathNextVersion:
		return control.NextVersion{Version: b.latest(agent, name) + 1}, nil
	case "GET " + control.PathSecrets:
		infos := []control.SecretInfo{}
		for _, m := range b.metas {
			if agent == "" || m.Agent == agent {
				infos = append(infos, control.SecretInfo{Meta: m})
			}
		}
		return infos, nil
	case "POST " + control.PathSecrets:
		return b.set(r.Body)
	case "DELETE " + control.PathSecrets:
		for i, m := range b.metas {
			if m.Agent == agent && m.Name == name {
				b.metas = append(b.metas[:i], b.metas[i+1:]...)
				return control.SecretInfo{Meta: m}, nil
			}
		}
		return nil, &control.Error{Code: control.CodeNotFound, Message: "no such secret", Hint: "torno secrets list " + agent}
	case "GET " + control.PathTrust:
		if f, ok := b.trusted[agent]; ok {
			return f, nil
		}
		return nil, &control.Error{Code: control.CodeNotFound, Message: "nothing is trusted"}
	case "PUT " + control.PathTrust:
		var f control.TrustedFile
		if err := json.NewDecoder(r.Body).Decode(&f); err != nil {
			return nil, &control.Error{Code: control.CodeInvalid, Message: err.Error()}
		}
		b.trusted[f.Agent] = f
		return f, nil
	case "GET " + control.PathSessions:
		return b.sessions, nil
	}
	return nil, &control.Error{Code: control.CodeNotFound, Message: "the fake knows no " + r.URL.Path}
}

func (b *fakeBroker) latest(agent, name string) int {
	for _, m := range b.metas {
		if m.Agent == agent && m.Name == name {
			return m.Version
		}
	}
	return 0
}

// set opens what was sealed, as the broker would.
func (b *fakeBroker) set(body io.Reader) (any, *control.Error) {
	var all []control.SealedSecret
	if err := json.NewDecoder(body).Decode(&all); err != nil {
		return nil, &control.Error{Code: control.CodeInvalid, Message: err.Error()}
	}
	if b.conflicts > 0 {
		b.conflicts--
		if b.meanwhile != nil {
			b.metas = append(b.metas, *b.meanwhile)
		}
		return nil, &control.Error{Code: control.CodeConflict, Message: "somebody else was first", Hint: "try again"}
	}
	infos := []control.SecretInfo{}
	for _, s := range all {
		value, err := b.key.Open(s.Sealed, control.AssociatedData(s.Meta, s.KeyID))
		if err != nil {
			return nil, &control.Error{Code: control.CodeInvalid, Message: s.Meta.Name + ": " + err.Error()}
		}
		if want := b.latest(s.Meta.Agent, s.Meta.Name) + 1; s.Meta.Version != want {
			return nil, &control.Error{Code: control.CodeConflict, Message: "version"}
		}
		b.metas = append([]control.Meta{s.Meta}, b.metas...)
		b.values[s.Meta.Name] = string(value.AppendTo(nil))
		infos = append(infos, control.SecretInfo{Meta: s.Meta})
	}
	return infos, nil
}

func fakePresets(name string) []control.Preset {
	switch name {
	case "ANTHROPIC_API_KEY":
		return []control.Preset{{
			Name: "anthropic", Keys: []string{name}, Service: "Anthropic API", Audience: []string{"https://api.anthropic.com"},
			Inject: control.Injector{Scheme: control.SchemeHeader, Fields: []control.FieldTemplate{{Name: "x-api-key", Value: "{ANTHROPIC_API_KEY}"}}},
			Prefix: []string{"sk-ant-"}, SDKNeedsKey: true,
		}}
	case "DATABASE_URL":
		return []control.Preset{{Name: "database-url", Keys: []string{name}, Service: "a database", Expose: control.ExposeEnv}}
	}
	return []control.Preset{}
}

// An outcome is how a command ended.
type outcome struct {
	code        int
	out, errOut string
}

// torno runs the command with args and nothing on a terminal.
func torno(t *testing.T, stdin string, args ...string) outcome {
	t.Helper()
	root := newRoot("test")
	root.SetArgs(args)
	var out, errOut bytes.Buffer
	root.SetIn(strings.NewReader(stdin))
	root.SetOut(&out)
	root.SetErr(&errOut)
	code := execute(context.Background(), root)
	return outcome{code, out.String(), errOut.String()}
}
