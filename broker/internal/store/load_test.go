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
	openWithin  = 200 * time.Millisecond // with the look at each page and the manifest's verification, without that of each entry
	firstWithin = 300 * time.Millisecond // listing all 50,000 for the first time: each entry is read, and compared with the manifest
	listWithin  = 50 * time.Millisecond  // listing all 50,000
	oneWithin   = 5 * time.Millisecond   // listing one agent
	setWithin   = 50 * time.Millisecond
	flushWithin = 100 * time.Millisecond // writing use counts of all of them
	sureWithin  = time.Second            // verifying every entry
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
	s.file.db.NoSync = true // it is filled once
	defer func() { s.file.db.NoSync = false }()
	for a := range loadAgents {
		secrets := make([]control.SealedSecret, loadSecrets)
		for i := range secrets {
			m := control.Meta{Agent: fmt.Sprintf("agent-%04d", a), Name: fmt.Sprintf("SERVICE_%02d_API_KEY", i), Version: 1,
				Audience: []string{fmt.Sprintf("https://api-%02d.example.org", i)}, Inject: control.Injector{Scheme: control.SchemeBearer}, Created: time.Unix(1, 0).UTC()}
			secrets[i] = control.SealedSecret{Meta: m, KeyID: pk.ID(), Sealed: value}
		}
		set(t, s, secrets...)
		for i := range secrets {
			s.Counter(secrets[i].Meta.Agent, secrets[i].Meta.Name, 1).Used(time.Unix(2, 0))
		}
	}
}

// within holds that f takes no more of the processor than limit, times slack, and returns what it took.
func within(t *testing.T, what string, limit time.Duration, f func()) time.Duration {
	t.Helper()
	runtime.GC() // of what was before
	start, before := time.Now(), processor(t)
	f()
	took := processor(t) - before
	t.Logf("%s: %v of the processor (promised: %v), %v in all", what, took.Round(10*time.Microsecond), limit, time.Since(start).Round(10*time.Microsecond))
	if took > slack*limit {
		t.Errorf("%s took %v of the processor, promised are %v", what, took, limit)
	}
	return took
}

// processor is the time that this process has had of it.
func processor(t testing.TB) time.Duration {
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
	within(t, "writing use counts", flushWithin, func() {
		if err := s.FlushUsage(); err != nil {
			t.Error(err)
		}
	})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	within(t, "opening", openWithin, func() { s = openStore(t, dir) })
	all := func() {
		if metas, _, err := s.Secrets(""); err != nil || len(metas) != loadAgents*loadSecrets || metas[len(metas)-1].Uses != 1 {
			t.Errorf("%d secrets, %v", len(metas), err)
		}
	}
	first := within(t, "listing all for the first time", firstWithin, all)
	if again := within(t, "listing all", listWithin, all); again > first/2 {
		t.Errorf("%v again, %v for the first time: they are read anew", again, first) // the control
	}
	within(t, "listing one agent", oneWithin, func() {
		if metas, broken, err := s.Secrets("agent-0500"); err != nil || len(metas) != loadSecrets || len(broken) > 0 {
			t.Errorf("%d secrets, %v, %v", len(metas), broken, err)
		}
	})
	within(t, "setting one more", setWithin, func() { set(t, s, sealed(t, s, "agent-0500", "ONE_MORE", 1, "v")) })
	within(t, "listing all after that", listWithin, func() {
		if metas, _, err := s.Secrets(""); err != nil || len(metas) != loadAgents*loadSecrets+1 {
			t.Errorf("%d secrets, %v", len(metas), err)
		}
	})
	within(t, "verifying every entry", sureWithin, func() {
		if v, err := s.Verify(); err != nil || v.Versions != loadAgents*loadSecrets+1 || len(v.Broken) > 0 {
			t.Errorf("%+v, %v", v, err)
		}
	})
}

// BenchmarkFleet takes the figures of a fleet's store.
func BenchmarkFleet(b *testing.B) {
	dir := filepath.Join(b.TempDir(), "state")
	s := openStore(b, dir)
	fleet(b, s)
	reopen := func() {
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
		s = openStore(b, dir)
	}
	list := func(agent string) {
		if _, broken, err := s.Secrets(agent); err != nil || len(broken) > 0 {
			b.Fatal(broken, err)
		}
	}
	for _, c := range []struct {
		name       string
		before, do func()
	}{
		{"open", func() {}, reopen},
		{"first", reopen, func() { list("") }},
		{"all", func() {}, func() { list("") }},
		{"one", func() {}, func() { list("agent-0500") }},
		{"verify", func() {}, func() {
			if v, err := s.Verify(); err != nil || len(v.Broken) > 0 {
				b.Fatal(v, err)
			}
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			var took time.Duration
			for b.Loop() {
				b.StopTimer()
				c.before()
				began := processor(b)
				b.StartTimer()
				c.do()
				took += processor(b) - began
			}
			b.ReportMetric(float64(took.Microseconds())/1e3/float64(b.N), "cpu-ms/op")
		})
	}
}
