package store

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"torno.internal/protocol/control"
)

// helperEnv makes the test binary a child that works on a store until it is killed.
const (
	helperEnv = "TORNO_STORE_CHILD"
	workEnv   = "TORNO_STORE_WORK"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(helperEnv); dir != "" {
		child(dir, os.Getenv(workEnv))
	}
	os.Exit(m.Run())
}

// A lineAnchor is an Anchor in a file of its own, one line a change, each forced to disk: what the audit is,
// without its chain.
type lineAnchor struct{ path string }

func (a *lineAnchor) Record(c Commit) error {
	f, err := os.OpenFile(a.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	for _, ch := range c.Changes {
		if _, err := fmt.Fprintf(f, "%d %x %q %q %q %d\n", c.Number, c.Manifest, ch.Event, ch.Agent, ch.Name, ch.Version); err != nil {
			return err
		}
	}
	return errors.Join(f.Sync(), f.Close())
}

func (a *lineAnchor) each(f func(Commit)) error {
	b, err := os.ReadFile(a.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	lines := bufio.NewScanner(bytes.NewReader(b))
	for lines.Scan() {
		var c Commit
		var sum string
		var ch Change
		if n, _ := fmt.Sscanf(lines.Text(), "%d %s %q %q %q %d", &c.Number, &sum, &ch.Event, &ch.Agent, &ch.Name, &ch.Version); n != 6 {
			continue // a torn line, as the audit cuts one off
		}
		_, _ = hex.Decode(c.Manifest[:], []byte(sum))
		c.Changes = []Change{ch}
		f(c)
	}
	return err
}

func (a *lineAnchor) Last() (last Commit, err error) {
	return last, a.each(func(c Commit) { last = c })
}

func (a *lineAnchor) Since(number uint64, f func(Change)) error {
	return a.each(func(c Commit) {
		if c.Number > number {
			f(c.Changes[0])
		}
	})
}

func anchorOf(dir string) *lineAnchor { return &lineAnchor{filepath.Join(dir, "anchor")} }

// child works on the store in dir until it is killed.
func child(dir, work string) {
	fail := func(err error) {
		fmt.Println("error", err)
		os.Exit(1)
	}
	s, err := Open(dir)
	if err != nil {
		fail(err)
	}
	if findings, err := s.SetAnchor(anchorOf(dir)); err != nil || len(findings) > 0 {
		fail(fmt.Errorf("%v, %v", findings, err))
	}
	fmt.Println("ready")
	if work == "rotate" {
		for {
			if err := s.Rotate(context.Background(), quiet); err != nil {
				fail(err)
			}
		}
	}
	fail(setForEver(s))
}

// setForEver sets, replaces, revokes and deletes secrets and prints each that was acknowledged.
func setForEver(s *Store) error {
	for {
		name := string(rune('K' + rand.IntN(4)))
		last, _, err := s.Last("a", name)
		if err != nil {
			return err
		}
		if rand.IntN(4) == 0 {
			if _, err := s.RevokeSecret("a", name, last); errors.Is(err, ErrNotFound) || errors.Is(err, ErrRevoked) {
				continue
			} else if err != nil {
				return err
			}
			fmt.Println("revoked", name, last)
			continue
		}
		if rand.IntN(4) == 0 {
			if _, err := s.DeleteSecret("a", name); errors.Is(err, ErrNotFound) {
				continue
			} else if err != nil {
				return err
			}
			fmt.Println("deleted", name, last)
			continue
		}
		m := control.Meta{Agent: "a", Name: name, Version: last + 1}
		if err := s.SetSecrets([]control.SealedSecret{{Meta: m, KeyID: s.Public().ID(), Sealed: []byte("x")}}); err != nil {
			return err
		}
		fmt.Println("set", name, last+1)
	}
}

// A process is a child and what it has printed.
type process struct {
	cmd  *exec.Cmd
	out  *bufio.Scanner
	said []string
}

func startChild(t *testing.T, dir string) *process {
	t.Helper()
	return startWorker(t, dir, "set")
}

func startWorker(t *testing.T, dir, work string) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), helperEnv+"="+dir, workEnv+"="+work)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: cmd, out: bufio.NewScanner(out)}
	if !p.out.Scan() || p.out.Text() != "ready" {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		t.Fatalf("the child says %q", p.out.Text())
	}
	return p
}

// kill kills the child and takes what it said before.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	for p.out.Scan() {
		p.said = append(p.said, p.out.Text())
	}
	_ = p.cmd.Wait()
}

// killRounds is how often TestAttack36Kill kills, at odd moments.
const killRounds = 40

// Nothing that was acknowledged is lost when the process is killed, the manifest holds, and the audit has
// every commit: the one that the process did not live to record too.
func TestAttack36Kill(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	acknowledged, repaired := map[string]string{}, 0
	for i := range killRounds {
		p := startChild(t, dir)
		time.Sleep(time.Duration(rand.IntN(20_000)) * time.Microsecond)
		p.kill()
		for _, line := range p.said {
			if strings.HasPrefix(line, "error") {
				t.Fatalf("round %d: %s", i, line)
			}
			what, rest, _ := strings.Cut(line, " ")
			name, version, _ := strings.Cut(rest, " ")
			acknowledged[name] = what + " " + version
		}
		s, err := Open(dir)
		if err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
		a := anchorOf(dir)
		before, err := a.Last()
		if err != nil {
			t.Fatal(err)
		}
		if findings, err := s.SetAnchor(a); err != nil || len(findings) > 0 {
			t.Fatalf("round %d: found %v, %v", i, findings, err)
		}
		head, _, err := s.head()
		if last, lerr := a.Last(); err != nil || lerr != nil || last.Number != head.Number || head.Number > 0 && last.Manifest != head.Manifest {
			t.Fatalf("round %d: the audit ends at %d, the store at %d (%v, %v)", i, last.Number, head.Number, err, lerr)
		}
		repaired += int(head.Number - before.Number)
		checkAcknowledged(t, s, acknowledged)
		if broken := verify(t, s); len(broken) > 0 {
			t.Fatalf("round %d: %v", i, broken)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(acknowledged) == 0 {
		t.Error("nothing was ever acknowledged: nothing was tested")
	}
	t.Logf("%d of %d kills fell between commit and record", repaired, killRounds)
}

// checkAcknowledged holds that each name is at least at what was acknowledged of it.
func checkAcknowledged(t *testing.T, s *Store, acknowledged map[string]string) {
	t.Helper()
	for name, ack := range acknowledged {
		var version int
		what := ""
		_, _ = fmt.Sscanf(ack, "%s %d", &what, &version)
		last, _, err := s.Last("a", name)
		if err != nil || last < version {
			t.Fatalf("%s: version %d is there, %s was acknowledged (%v)", name, last, ack, err)
		}
		// What came after it, unacknowledged, may have deleted it too.
		if _, err := s.Secret("a", name, 0); last == version && (what == "deleted" && !errors.Is(err, ErrNotFound) ||
			what == "revoked" && !errors.Is(err, ErrRevoked) && !errors.Is(err, ErrNotFound)) {
			t.Fatalf("%s: %s was acknowledged, and it is there: %v", name, ack, err)
		}
	}
}

// The one commit that the process did not live to record is recorded by the next, exactly.
func TestAttack36BetweenCommitAndRecord(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	m := &memory{}
	s := openStore(t, dir)
	anchored(t, s, m)
	set(t, s, sealed(t, s, "a", "K", 1, "one"))
	m.fail = errors.New("killed")
	if err := s.SetSecrets([]control.SealedSecret{sealed(t, s, "a", "K", 2, "two"), sealed(t, s, "a", "L", 1, "l")}); !errors.Is(err, m.fail) {
		t.Fatal(err)
	}
	s.Close()
	m.fail = nil
	s = openStore(t, dir)
	if f := anchored(t, s, m); len(f) > 0 {
		t.Errorf("found %v", f)
	}
	want := []Change{{EventSet, "a", "K", 2}, {EventSet, "a", "L", 1}}
	if last := m.commits[len(m.commits)-1]; len(m.commits) != 2 || last.Number != 2 || fmt.Sprint(last.Changes) != fmt.Sprint(want) {
		t.Errorf("recorded: %+v", m.commits)
	}
	if got, err := value(s, "a", "K", 0); err != nil || got != "two" {
		t.Errorf("%q, %v", got, err)
	}
}

// The second broker on a state directory says which process holds it.
func TestAttack40TwoBrokers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	p := startChild(t, dir)
	defer p.kill()
	_, err := Open(dir)
	var busy *BusyError
	if !errors.As(err, &busy) || busy.PID != p.cmd.Process.Pid {
		t.Errorf("error %v, want a BusyError with process %d", err, p.cmd.Process.Pid)
	}
	if err == nil || !strings.Contains(err.Error(), fmt.Sprint(p.cmd.Process.Pid)) {
		t.Errorf("%v does not say who holds it", err)
	}
}
