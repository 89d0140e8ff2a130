package broker

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"sync"
	"testing"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// deletion is the control request that deletes a secret of agent a.
func deletion(name string) string {
	return control.PathSecrets + "?" + url.Values{"agent": {"a"}, "name": {name}}.Encode()
}

// revoked reports whether requests to host get no credential any more.
func revoked(s *live, host string) bool {
	_, _, err := s.secrets().Select(protocol.Authority{Host: host, Port: 443}, "https", nil, "")
	return reasonOf(err) == protocol.ReasonRevoked
}

// TestAttack26DeletedWhileStarting deletes a secret while a session that uses it begins, again and again. Either there is
// no session, or its requests get no credential.
func TestAttack26DeletedWhileStarting(t *testing.T) {
	d := newDesk(t, nil)
	sessions := 0
	for version := 1; version <= 40; version++ {
		d.must(d.set("a", "KEY", testKey, version))
		var s control.SessionCreated
		var created, deleted error
		var both sync.WaitGroup
		both.Go(func() {
			created = d.call("POST", control.PathSessions, control.SessionRequest{
				Agent: "a", Isolation: protocol.IsolationNamespace, Workload: protocol.Workload{Argv: []string{"true"}},
			}, &s)
		})
		both.Go(func() { deleted = d.call("DELETE", deletion("KEY"), nil, nil) })
		both.Wait()
		d.must(deleted)
		if created != nil || len(d.broker.get(s.ID).record.Secrets()) == 0 {
			continue
		}
		if sessions++; !revoked(d.broker.get(s.ID), "example.com") {
			t.Fatalf("version %d: the session goes on with a secret that was deleted", version)
		}
	}
	t.Logf("%d sessions began before the deletion", sessions)
}

// TestAttack26DeletedTogether ends the use of 32 secrets at the same time: none of them is forgotten over another.
func TestAttack26DeletedTogether(t *testing.T) {
	d := newDesk(t, nil)
	host := func(i int) string { return fmt.Sprintf("h%d.example", i) }
	for i := range 32 {
		d.must(d.setFor("a", fmt.Sprintf("KEY_%d", i), testKey, 1, "https://"+host(i)))
	}
	for round := range 10 {
		s := d.broker.get(d.session("a").ID)
		var all sync.WaitGroup
		for i := range 32 {
			all.Go(func() { s.revokeSecret(fmt.Sprintf("KEY_%d", i), 0) })
		}
		all.Wait()
		for i := range 32 {
			if !revoked(s, host(i)) {
				t.Fatalf("round %d: the secret of %s is in use still", round, host(i))
			}
		}
	}
}

// TestAttack47ProofOfWipedSecrets ends a session whose memory is about to be searched: a search for the zeros that are
// left of its secrets would prove nothing and look clean.
func TestAttack47ProofOfWipedSecrets(t *testing.T) {
	d := newDesk(t, nil)
	d.must(d.set("my-agent", "API_KEY", testKey, 1))
	id, _ := vmSession(t, d)
	s := d.broker.get(id)
	m, p, err := s.wanted()
	if err != nil || p.Secrets != 1 {
		t.Fatalf("%+v, %v", p, err)
	}
	m.Wipe()
	d.must(d.call("POST", control.PathSession+id+"/end", nil, nil))
	for d.broker.get(id) != nil {
		time.Sleep(time.Millisecond)
	}
	if _, p, err := s.wanted(); err == nil {
		t.Errorf("after the end: %+v", p)
	}
}

// TestPanicBeside lets what runs beside an exchange panic: the exchange is aborted, and what was panicked with is kept out
// of the log.
func TestPanicBeside(t *testing.T) {
	var logged bytes.Buffer
	s := &live{log: slog.New(slog.NewTextHandler(&logged, nil))}
	aborted := false
	err := <-s.beside(func() error { panic(testKey) }, func() { aborted = true })
	if !errors.Is(err, errPanicked) || !aborted || logged.Len() == 0 || leaks(logged.String()) {
		t.Errorf("%v, aborted %v, logged %q", err, aborted, logged.String())
	}
	if err := <-s.beside(func() error { return nil }, t.FailNow); err != nil {
		t.Error(err)
	}
}
