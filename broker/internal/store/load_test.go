package store

import (
	"fmt"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"torno.internal/protocol/control"
)

// A fleet's store: what is promised of it.
const (
	loadAgents  = 1000
	loadSecrets = 50 // of each
)

// The promises, in time of the processor: a busy machine takes longer and does no more.
const (
	openWithin = 200 * time.Millisecond // with the manifest's verification, without that of each entry
	listWithin = 50 * time.Millisecond  // of one agent
	allWithin  = 500 * time.Millisecond // of all 50,000
	setWithin  = 50 * time.Millisecond
	sureWithin = time.Second // verifying every entry
)

// slack is what a slower processor gets on top.
const slack = 3

// fleet fills the store.
func fleet(t testing.TB, s *Store) {
	t.Helper()
	pk := s.Public()
	value, err := pk.Seal([]byte("0123456789abcdef0123456789abcdef"), nil) // as long as a real one; nobody opens it
	if err != nil {
		t.Fatal(err)
	}
	for a := range loadAgents {
		secrets := make([]control.SealedSecret, loadSecrets)
		for i := range secrets {
			m := control.Meta{Agent: fmt.Sprintf("agent-%04d", a), Name: fmt.Sprintf("SERVICE_%02d_API_KEY", i), Version: 1,
				Audience: []string{fmt.Sprintf("https://api-%02d.example.org", i)}, Inject: control.Injector{Scheme: control.SchemeBearer}, Created: time.Unix(1, 0).UTC()}
			secrets[i] = control.SealedSecret{Meta: m, KeyID: pk.ID(), Sealed: value}
		}
		set(t, s, secrets...)
	}
}

// within holds that f takes no more of the processor than limit, times slack.
func within(t *testing.T, what string, limit time.Duration, f func()) {
	t.Helper()
	runtime.GC() // of what was before
	start, before := time.Now(), processor(t)
	f()
	took := processor(t) - before
	t.Logf("%s: %v of the processor (promised: %v), %v in all", what, took.Round(10*time.Microsecond), limit, time.Since(start).Round(10*time.Microsecond))
	if took > slack*limit {
		t.Errorf("%s took %v of the processor, promised are %v", what, took, limit)
	}
}

// processor is the time that this process has had of it.
func processor(t *testing.T) time.Duration {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func TestLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("fills a store of 50,000 secrets; run without -short")
	}
	dir := filepath.Join(t.TempDir(), "state")
	s := openStore(t, dir)
	fleet(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	within(t, "opening", openWithin, func() { s = openStore(t, dir) })
	within(t, "listing one agent", listWithin, func() {
		if metas, broken, err := s.Secrets("agent-0500"); err != nil || len(metas) != loadSecrets || len(broken) > 0 {
			t.Errorf("%d secrets, %v, %v", len(metas), broken, err)
		}
	})
	within(t, "listing all", allWithin, func() {
		if metas, _, err := s.Secrets(""); err != nil || len(metas) != loadAgents*loadSecrets {
			t.Errorf("%d secrets, %v", len(metas), err)
		}
	})
	within(t, "setting one more", setWithin, func() { set(t, s, sealed(t, s, "agent-0500", "ONE_MORE", 1, "v")) })
	within(t, "verifying every entry", sureWithin, func() {
		if v, err := s.Verify(); err != nil || v.Versions != loadAgents*loadSecrets+1 || len(v.Broken) > 0 {
			t.Errorf("%+v, %v", v, err)
		}
	})
}
