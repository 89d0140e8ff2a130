package broker

import (
	"context"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"torno.internal/broker/internal/store"
	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// A fleet's store, and what a session of it declares.
const (
	fleetAgents   = 1000
	fleetSecrets  = 50 // of each
	fleetDeclares = 16
	fleetAgent    = "agent-0500" // whose secrets open
)

// newFleet starts a broker whose store is a fleet's, and trusts a file that declares some of one agent's secrets.
func newFleet(t testing.TB) (*desk, control.SessionRequest) {
	t.Helper()
	d := planDesk(t, nil)
	d.fill()
	d.start()
	if _, err := d.broker.store.Warm(context.Background()); err != nil { // as it does by itself, and then nothing else goes on
		t.Fatal(err)
	}
	names := make([]string, fleetDeclares)
	for i := range names {
		names[i] = fmt.Sprintf("SERVICE_%02d_API_KEY", i)
	}
	file := []byte("name = " + fleetAgent)
	d.must(d.call("PUT", control.PathTrust, control.TrustedFile{Agent: fleetAgent, File: file, Policy: control.AgentPolicy{Name: fleetAgent, Secrets: names}}, nil))
	return d, control.SessionRequest{Agent: fleetAgent, File: file, Isolation: protocol.IsolationNamespace, Workload: protocol.Workload{Argv: []string{"true"}}}
}

// fill fills the store, in one commit.
func (d *desk) fill() {
	d.t.Helper()
	s, err := store.Open(d.cfg.StateDir)
	d.must(err)
	pk := s.Public()
	one, err := pk.Seal([]byte("0123456789abcdef0123456789abcdef"), nil) // as long as a real one; nobody opens it
	d.must(err)
	var all []control.SealedSecret
	for a := range fleetAgents {
		for i := range fleetSecrets {
			m := control.Meta{Agent: fmt.Sprintf("agent-%04d", a), Name: fmt.Sprintf("SERVICE_%02d_API_KEY", i), Version: 1,
				Audience: []string{fmt.Sprintf("https://api-%02d.example.org", i)}, Inject: control.Injector{Scheme: control.SchemeBearer}, Created: time.Now()}
			value := one
			if m.Agent == fleetAgent {
				value, err = pk.Seal(fmt.Appendf(nil, "%02d-%s", i, testKey), control.AssociatedData(m, pk.ID()))
				d.must(err)
			}
			all = append(all, control.SealedSecret{Meta: m, KeyID: pk.ID(), Sealed: value})
		}
	}
	d.must(s.SetSecrets(all))
	d.must(s.Close())
}

// processor is the time that this process has had of it: what others do on the machine is not in it.
func processor(t testing.TB) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// The promise, in time of the processor, and what a slower one gets on top.
const (
	sessionWithin = 5 * time.Millisecond
	fleetSlack    = 3
)

// A session of 16 declared secrets, out of a store of 50,000, starts within what is promised; and all secrets are listed, at once
// and in parts.
func TestFleet(t *testing.T) {
	if testing.Short() {
		t.Skip("fills a store of 50,000 secrets; run without -short")
	}
	d, req := newFleet(t)
	const sessions = 20
	start := func() {
		created, err := d.broker.createSession(t.Context(), req)
		d.must(err)
		if s := d.broker.get(created.ID); s == nil || len(s.uses()) != fleetDeclares {
			t.Fatal("no such session")
		}
	}
	start() // whatever is made once
	before := processor(t)
	for range sessions {
		start()
	}
	took := (processor(t) - before) / sessions
	t.Logf("a session takes %v of the processor (promised: %v)", took.Round(10*time.Microsecond), sessionWithin)
	if took > fleetSlack*sessionWithin {
		t.Errorf("a session takes %v of the processor, promised are %v", took, sessionWithin)
	}
	checkParts(d)
}

// checkParts holds that parts of a list are what the list is.
func checkParts(d *desk) {
	d.t.Helper()
	var all []control.SecretInfo
	d.must(d.call("GET", control.PathSecrets, nil, &all))
	if len(all) != fleetAgents*fleetSecrets {
		d.t.Fatalf("%d secrets", len(all))
	}
	after, n := "", 0
	for {
		var part []control.SecretInfo
		d.must(d.call("GET", control.PathSecrets+"?limit=9999&after="+after, nil, &part))
		for _, i := range part {
			if n == len(all) || all[n].Agent != i.Agent || all[n].Name != i.Name {
				d.t.Fatalf("entry %d in parts is %s/%s", n, i.Agent, i.Name)
			}
			n++
		}
		if len(part) < 9999 {
			break
		}
		after = part[len(part)-1].Agent + "/" + part[len(part)-1].Name
	}
	if n != len(all) {
		d.t.Errorf("%d in parts, %d in all", n, len(all))
	}
	for _, wrong := range []string{"0", "-1", "10001", "x"} {
		if err := d.call("GET", control.PathSecrets+"?limit="+wrong, nil, nil); err == nil {
			d.t.Errorf("limit=%s is taken", wrong)
		}
	}
}

// BenchmarkFleetSession starts sessions of 16 declared secrets, out of a store of 50,000.
func BenchmarkFleetSession(b *testing.B) {
	d, req := newFleet(b)
	before := processor(b)
	for b.Loop() {
		_, err := d.broker.createSession(context.Background(), req)
		d.must(err)
	}
	b.ReportMetric(float64((processor(b)-before).Microseconds())/1e3/float64(b.N), "cpu-ms/op")
}
