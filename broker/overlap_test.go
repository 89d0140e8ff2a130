package broker

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"torno.internal/broker/internal/credential"
	"torno.internal/protocol"
	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// A password, and an address that it stands in and that workloads see.
const (
	password = "0a1b2c3d4e5f60718293a4b5c6d7e8f9"
	address  = "postgresql://app:" + password + "@db/app"
)

// exposed is a version of what the workloads of agent a see.
func exposed(version int) control.Meta {
	return control.Meta{Agent: "a", Name: "DATABASE_URL", Version: version, Expose: control.ExposeEnv}
}

// TestRowS8Overlap sets a value that no workload may hold beside one that it sees and that shares bytes with it,
// in either order and for either agent.
func TestRowS8Overlap(t *testing.T) {
	up := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte(r.Header.Get("Authorization")))
	}))
	defer up.Close()
	d := newDesk(t, up)
	d.must(d.setMeta(exposed(1), address))
	err := d.setMeta(bearerOf("PG_PASSWORD", 1, ""), password)
	if err == nil || !strings.Contains(err.Error(), "PG_PASSWORD shares bytes with DATABASE_URL") || strings.Contains(err.Error(), password) {
		t.Errorf("the exposed one was first: %v", err)
	}
	d.must(d.setMeta(bearerOf("PG_PASSWORD", 1, ""), keyOf(1))) // the control
	if err := d.setMeta(exposed(2), "x"+keyOf(1)[4:16]); err == nil {
		t.Error("the proxied one was first, and twelve bytes of it were exposed")
	}
	d.must(d.setMeta(exposed(2), "x"+keyOf(1)[4:15]))
	other := bearerOf("PG_PASSWORD", 1, "")
	other.Agent = "b"
	d.must(d.setMeta(other, "x"+keyOf(1)[4:15]+"y0123456789"))
	allowed := bearerOf("PG_PASSWORD", 2, "")
	allowed.Overlap = true
	d.must(d.setMeta(exposed(3), address))
	d.must(d.setMeta(allowed, password))
	_, stream := d.enter()
	want(t, "what is out of the guarantee is not masked", stream().says(), "Bearer "+password)
}

// TestRowS8OverlapAtStart has in the store what setting refuses: no session begins that would have both.
func TestRowS8OverlapAtStart(t *testing.T) {
	d := newDesk(t, nil)
	d.must(d.broker.store.SetSecrets([]control.SealedSecret{d.seal(exposed(1), address), d.seal(bearerOf("PG_PASSWORD", 1, ""), password)}))
	request := control.SessionRequest{Agent: "a", Isolation: protocol.IsolationNamespace, Workload: protocol.Workload{Argv: []string{"true"}}}
	begin := func() error { return d.call("POST", control.PathSessions, request, nil) }
	var ce *control.Error
	err := begin()
	if !errors.As(err, &ce) || ce.Code != control.CodeConflict || !strings.Contains(ce.Message, "PG_PASSWORD shares bytes with DATABASE_URL") ||
		!strings.Contains(ce.Hint, "--allow-exposed-overlap") || strings.Contains(ce.Message+ce.Hint, password[:8]) {
		t.Errorf("%+v", err)
	}
	var infos []control.SessionInfo
	d.must(d.call("GET", control.PathSessions, nil, &infos))
	if len(infos) != 0 {
		t.Errorf("a session began: %+v", infos)
	}

	file := control.TrustedFile{Agent: "a", File: []byte("a"), Policy: control.AgentPolicy{Name: "a", Secrets: []string{"PG_PASSWORD"}}}
	d.must(d.call("PUT", control.PathTrust, file, nil))
	request.File = file.File
	d.must(begin()) // which has one of the two alone
	request.File = nil
	allowed := bearerOf("PG_PASSWORD", 2, "")
	allowed.Overlap = true
	d.must(d.setMeta(allowed, password))
	d.must(begin())
	d.must(d.broker.store.SetSecrets([]control.SealedSecret{d.seal(bearerOf("PG_PASSWORD", 3, ""), password)}))
	if begin() == nil {
		t.Error("a session began with a version that may not overlap")
	}
	d.must(d.setMeta(exposed(2), "postgresql://app:another@db/app"))
	d.must(begin())
}

// TestRowS8OverlapFollowed sets a value under a session whose workload was given it in a version of before: the
// session does not follow.
func TestRowS8OverlapFollowed(t *testing.T) {
	up := httptest.NewTLSServer(http.HandlerFunc(whose))
	defer up.Close()
	d := newDesk(t, up)
	d.must(d.setMeta(bearerOf("KEY", 1, control.RotationFollow), keyOf(1)))
	d.must(d.setMeta(exposed(1), "x "+keyOf(3)))
	s, stream := d.enter()
	d.must(d.setMeta(exposed(2), address))
	d.must(d.setMeta(bearerOf("KEY", 2, control.RotationFollow), keyOf(2)))
	want(t, "the control", stream().says(), "2")
	d.must(d.setMeta(bearerOf("KEY", 3, control.RotationFollow), keyOf(3)))
	want(t, "what its workload was given", stream().says(), "revoked")
	_, later := d.enter()
	want(t, "a new session", later().says(), "3")
	found := false
	for _, r := range d.records("event") {
		found = found || r.Session == s.ID && r.Event == eventNotFollowed && r.Version == 3
	}
	if !found {
		t.Error("that is not in the audit")
	}
}

// TestRowS8OverlapAtOnce sets both at the same time, again and again: never are both there.
func TestRowS8OverlapAtOnce(t *testing.T) {
	d := newDesk(t, nil)
	for i := range 20 {
		var both [2]control.SealedSecret
		for j, m := range []control.Meta{exposed(1), bearerOf("KEY", 1, "")} {
			m.Agent = fmt.Sprintf("a%d", i)
			both[j] = d.seal(m, keyOf(1))
		}
		set := make(chan error, 2)
		for _, sealed := range both {
			go func() { set <- d.broker.storeSecrets([]control.SealedSecret{sealed}) }()
		}
		if first, second := <-set, <-set; (first == nil) == (second == nil) {
			t.Fatalf("%v, %v: want one of the two refused", first, second)
		}
	}
}

// BenchmarkOverlapAtStart compares sixteen secrets of a session that begins, four of which its workload sees.
func BenchmarkOverlapAtStart(b *testing.B) {
	for _, size := range []int{48, control.MaxValue} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			var secrets []credential.Secret
			for i := range 16 {
				m := bearerOf(fmt.Sprintf("KEY_%d", i), 1, "")
				if i < 4 {
					m = control.Meta{Agent: "a", Name: m.Name, Version: 1, Expose: control.ExposeEnv}
				}
				value := make([]byte, size)
				_, _ = rand.Read(value)
				secrets = append(secrets, credential.Secret{Meta: m, Value: secret.New(value)})
			}
			set, err := credential.NewSet(secrets)
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if err := refuseOverlap(set); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
