package run

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"torno.internal/protocol"
)

// withWorkspace serves in as the workspace and keeps what comes back in back.
func withWorkspace(in string, back *bytes.Buffer) func(*Config) {
	return func(c *Config) {
		c.SendWorkspace = func(w io.Writer) error { _, err := io.WriteString(w, in); return err }
		c.ReceiveWorkspace = func(r io.Reader) error {
			_, err := io.Copy(back, r)
			if back.String() == "bad" {
				return errors.New("bad")
			}
			return err
		}
	}
}

func TestWorkspace(t *testing.T) {
	big := strings.Repeat("workspace", 100_000)
	var back bytes.Buffer
	d := sit(t, withWorkspace(big, &back))
	in := d.get(protocol.PathWorkspaceIn)
	got, err := io.ReadAll(in.r)
	if err != nil || string(got) != big {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	d.post(protocol.PathWorkspaceOut, []byte(big))
	d.fakeGuest.exit(protocol.Exit{Code: 4})
	if exit, err := d.wait(); err != nil || exit.Code != 4 || back.String() != big {
		t.Errorf("%+v, %v, %d bytes came back", exit, err, back.Len())
	}
}

// A workspace that can't be read, or is refused, ends its stream without the end that means success.
func TestWorkspaceBreaksOff(t *testing.T) {
	var back bytes.Buffer
	d := sit(t, func(c *Config) {
		withWorkspace("", &back)(c)
		c.SendWorkspace = func(w io.Writer) error { _, _ = io.WriteString(w, "half"); return errors.New("the disk") }
	})
	in := d.get(protocol.PathWorkspaceIn)
	if got, err := io.ReadAll(in.r); err == nil {
		t.Errorf("%q is whole", got)
	}
	out := d.open("POST", protocol.PathWorkspaceOut)
	if err := out.send([]byte("bad")); err != nil {
		t.Fatal(err)
	}
	if status, err := out.finish(); err == nil {
		t.Errorf("status %d for what was refused", status)
	}
	none := sit(t, nil)
	for method, path := range map[string]string{"GET": protocol.PathWorkspaceIn, "POST": protocol.PathWorkspaceOut} {
		if status, err := none.refused(method, path); err != nil || status != 404 {
			t.Errorf("%s without a workspace: %d, %v", path, status, err)
		}
	}
}

// With a workspace the second interrupt is the workload's end, the third the run's. While the workspace comes
// back the first one already says what the next would do.
func TestInterruptsWithWorkspace(t *testing.T) {
	said := make(chan string, 4)
	var back bytes.Buffer
	d := sit(t, func(c *Config) { withWorkspace("", &back)(c); c.Say = func(s string) { said <- s } })
	events := d.get(protocol.PathRunEvents)
	d.get(protocol.PathStdin)
	for _, want := range []string{"INT", "KILL"} {
		d.signals <- unix.SIGINT
		if e, err := events.event(); err != nil || e.Signal != want {
			t.Fatalf("%+v, %v; want %s", e, err, want)
		}
	}
	if s := <-said; !strings.Contains(s, "^C once more") {
		t.Errorf("said %q", s)
	}
	d.signals <- unix.SIGINT
	if exit, err := d.wait(); !errors.Is(err, ErrForced) || exit.Code != 130 {
		t.Errorf("%+v, %v; want 130", exit, err)
	}

	came := make(chan bool)
	d = sit(t, func(c *Config) {
		withWorkspace("", &back)(c)
		c.Say = func(s string) { said <- s }
		c.ReceiveWorkspace = func(r io.Reader) error { close(came); _, err := io.Copy(io.Discard, r); return err }
	})
	d.get(protocol.PathStdin)
	out := d.open("POST", protocol.PathWorkspaceOut)
	defer out.Close()
	<-came
	d.signals <- unix.SIGINT
	<-said
	d.signals <- unix.SIGINT
	if exit, err := d.wait(); !errors.Is(err, ErrForced) || exit.Code != 130 {
		t.Errorf("while it comes back: %+v, %v; want 130", exit, err)
	}
}

// ~. with a workspace ends the workload, and gives the terminal back.
func TestEscapeWithWorkspace(t *testing.T) {
	said := make(chan string, 1)
	s := &server{Config: Config{SendWorkspace: func(io.Writer) error { return nil }, Say: func(s string) { said <- s }}, events: make(chan protocol.RunEvent, 1), forced: make(chan protocol.Exit, 1)}
	s.escaped()
	select {
	case e := <-s.events:
		if e.Signal != "KILL" || len(s.forced) > 0 {
			t.Errorf("event %+v, forced %d", e, len(s.forced))
		}
	case <-time.After(time.Second):
		t.Error("no event")
	}
}
