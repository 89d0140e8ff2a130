package run

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"torno.internal/protocol"
)

// A run from beginning to end: input with its end, both outputs, the exit code.
func TestRun(t *testing.T) {
	d := sit(t, nil)
	events, stdin := d.get(protocol.PathRunEvents), d.get(protocol.PathStdin)
	defer events.Close()
	stdout, stderr := d.open("POST", protocol.PathStdout), d.open("POST", protocol.PathStderr)
	defer stdout.Close()
	defer stderr.Close()
	binary := make([]byte, 1<<20)
	for i := range binary {
		binary[i] = byte(i * 7)
	}
	go func() { d.in.Write(binary); d.in.Close() }()
	got, err := io.ReadAll(stdin.r)
	if err != nil || !bytes.Equal(got, binary) {
		t.Fatalf("standard input: %d bytes, %v; want the %d that were written", len(got), err, len(binary))
	}
	var trailer protocol.Fields
	if err := stdin.r.ReadTrailer(&trailer); err != nil {
		t.Errorf("the end of the input is no clean end: %v", err)
	}
	stdin.Close()
	out, errs := collect(d.out), collect(d.errs)
	want := lines(10_000)
	if err := stdout.send(want); err != nil {
		t.Fatal(err)
	}
	if err := stderr.send([]byte("warning\n")); err != nil {
		t.Fatal(err)
	}
	for _, q := range []*request{stdout, stderr} {
		if status, err := q.finish(); err != nil || status != 200 {
			t.Fatalf("output: status %d, %v", status, err)
		}
	}
	d.fakeGuest.exit(protocol.Exit{Code: 42})
	exit, err := d.wait()
	if err != nil || exit.Code != 42 {
		t.Errorf("exit %+v, %v; want 42", exit, err)
	}
	d.config.Stdout.Close()
	d.config.Stderr.Close()
	if got := out(); !bytes.Equal(got, want) {
		t.Errorf("standard output: %d bytes, want %d, the same", len(got), len(want))
	}
	if got := errs(); string(got) != "warning\n" {
		t.Errorf("standard error: %q", got)
	}
}

func TestExits(t *testing.T) {
	for _, want := range []protocol.Exit{
		{}, {Code: 255}, {Code: 143, Signal: "TERM"},
		{Code: protocol.ExitNotFound, Error: `command "x": not found`, Hint: "is it installed?"},
	} {
		d := sit(t, nil)
		d.fakeGuest.exit(want)
		got, err := d.wait()
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%v (-want +got):\n%s", err, diff)
		}
	}
}

// What is no exit does not end the run.
func TestBadExits(t *testing.T) {
	for _, body := range []string{"", "{", `{"code":256}`, `{"code":-1}`, `"0"`, strings.Repeat(" ", maxExit+2)} {
		d := sit(t, nil)
		q := d.open("POST", protocol.PathExit)
		if err := q.send([]byte(body)); err == nil {
			if status, err := q.finish(); err == nil && status == 200 {
				t.Errorf("exit %.20q is taken", body)
			}
		}
		q.Close()
		d.cancel()
		if exit, err := d.wait(); !errors.Is(err, ErrNoExit) {
			t.Errorf("exit %.20q: %+v, %v", body, exit, err)
		}
	}
}

func TestPreface(t *testing.T) {
	other := uint32(4242)
	for _, c := range []struct {
		name    string
		preface protocol.Preface
		peer    *uint32
		want    error
	}{
		{"wrong token", protocol.Preface{Version: protocol.Version, Kind: protocol.KindRun}, nil, &protocol.StatusError{Status: protocol.StatusToken, Version: protocol.Version}},
		{"wrong kind", protocol.Preface{Version: protocol.Version, Kind: protocol.KindForward, Token: protocol.Token{1, 2, 3}}, nil, &protocol.StatusError{Status: protocol.StatusKind, Version: protocol.Version}},
		{"new version", protocol.Preface{Version: protocol.Version + 1, Kind: protocol.KindRun, Token: protocol.Token{1, 2, 3}}, nil, &protocol.StatusError{Status: protocol.StatusVersion, Version: protocol.Version}},
		{"another user", protocol.Preface{Version: protocol.Version, Kind: protocol.KindRun, Token: protocol.Token{1, 2, 3}}, &other, nil},
	} {
		d := sit(t, func(config *Config) { config.Peer = c.peer })
		q, err := d.dial(c.preface)
		if err == nil {
			q.Close()
			t.Errorf("%s: let in", c.name)
			continue
		}
		if c.want != nil {
			if diff := cmp.Diff(c.want.Error(), err.Error()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", c.name, diff)
			}
		}
	}
}

func TestRefusedRequests(t *testing.T) {
	d := sit(t, nil)
	first := d.get(protocol.PathStdin)
	defer first.Close()
	for _, c := range []struct {
		method, scheme, authority, path string
		want                            int
	}{
		{"GET", "torno", "run", "/v1/hello", 404},
		{"POST", "torno", "run", protocol.PathStdin, 405},
		{"GET", "torno", "run", protocol.PathExit, 405},
		{"GET", "https", "run", protocol.PathStdin, 400},
		{"GET", "torno", "broker", protocol.PathRunEvents, 400},
		{"GET", "torno", "run", protocol.PathStdin, 409},
	} {
		q, err := d.dial(protocol.Preface{Version: protocol.Version, Kind: protocol.KindRun, Token: d.token})
		if err != nil {
			t.Fatal(err)
		}
		if err := q.w.WriteRequest(&protocol.Request{Method: c.method, Scheme: c.scheme, Authority: c.authority, Path: c.path}); err != nil {
			t.Fatal(err)
		}
		if status, err := q.finish(); err != nil || status != c.want {
			t.Errorf("%s %s://%s%s: %d, %v; want %d", c.method, c.scheme, c.authority, c.path, status, err, c.want)
		}
		q.Close()
	}
}

// More connections than a run needs are turned away, and those that are there go on.
func TestTooManyStreams(t *testing.T) {
	d := sit(t, nil)
	turnedAway := 0
	for range maxStreams + 4 {
		q, err := d.dial(protocol.Preface{Version: protocol.Version, Kind: protocol.KindRun, Token: d.token})
		if err != nil {
			turnedAway++
			continue
		}
		defer q.Close()
	}
	if turnedAway != 4 {
		t.Errorf("%d turned away, want 4", turnedAway)
	}
}

// A workload that nobody reads is held up, not buffered.
func TestBackPressure(t *testing.T) {
	d := sit(t, nil)
	q := d.open("POST", protocol.PathStdout)
	defer q.Close()
	sent := 0
	chunk := make([]byte, 64<<10)
	for range 200 {
		q.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
		if err := q.send(chunk); err != nil {
			break
		}
		sent += len(chunk)
	}
	if sent > 2<<20 {
		t.Errorf("%d bytes went nowhere", sent)
	}
}

// Output that nobody reads does not keep a run from ending.
func TestEndsWhileOutputIsStuck(t *testing.T) {
	d := sit(t, nil)
	d.get(protocol.PathStdin)
	q := d.open("POST", protocol.PathStdout)
	defer q.Close()
	go q.send(make([]byte, 4<<20))
	time.Sleep(50 * time.Millisecond)
	d.signals <- unix.SIGINT
	d.signals <- unix.SIGINT
	if exit, err := d.wait(); !errors.Is(err, ErrForced) || exit.Code != 130 {
		t.Errorf("%+v, %v; want 130", exit, err)
	}
}

// A reader of our output that goes away stops the workload.
func TestBrokenPipe(t *testing.T) {
	d := sit(t, nil)
	events := d.get(protocol.PathRunEvents)
	defer events.Close()
	q := d.open("POST", protocol.PathStdout)
	defer q.Close()
	d.out.Close()
	if err := q.send([]byte("anybody?\n")); err != nil {
		t.Fatal(err)
	}
	if e, err := events.event(); err != nil || e.Type != protocol.RunStop {
		t.Errorf("event %+v, %v; want stop", e, err)
	}
}

func TestSignals(t *testing.T) {
	for _, c := range []struct {
		send unix.Signal
		want []protocol.RunEvent
		then int // exit code after the same signal again; -1: goes on
	}{
		{unix.SIGINT, []protocol.RunEvent{{Type: protocol.RunSignal, Signal: "INT"}}, 130},
		{unix.SIGTERM, []protocol.RunEvent{{Type: protocol.RunStop}}, 143},
		{unix.SIGHUP, []protocol.RunEvent{{Type: protocol.RunSignal, Signal: "HUP"}}, 129},
		{unix.SIGQUIT, []protocol.RunEvent{{Type: protocol.RunSignal, Signal: "QUIT"}}, -1},
		{unix.SIGUSR1, []protocol.RunEvent{{Type: protocol.RunSignal, Signal: "USR1"}}, -1},
		{unix.SIGUSR2, []protocol.RunEvent{{Type: protocol.RunSignal, Signal: "USR2"}}, -1},
	} {
		d := sit(t, nil)
		events := d.get(protocol.PathRunEvents)
		d.get(protocol.PathStdin)
		d.signals <- c.send
		for _, want := range c.want {
			got, err := events.event()
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("%v: %v (-want +got):\n%s", c.send, err, diff)
			}
		}
		d.signals <- c.send
		if c.then < 0 {
			d.fakeGuest.exit(protocol.Exit{Code: 3})
			if exit, err := d.wait(); err != nil || exit.Code != 3 {
				t.Errorf("%v twice: %+v, %v; want the workload's own exit", c.send, exit, err)
			}
		} else if exit, err := d.wait(); !errors.Is(err, ErrForced) || exit.Code != c.then {
			t.Errorf("%v twice: %+v, %v; want %d", c.send, exit, err, c.then)
		}
		events.Close()
	}
}

// Before the workload has its input one interrupt is enough.
func TestInterruptBeforeStart(t *testing.T) {
	d := sit(t, nil)
	d.signals <- unix.SIGINT
	if exit, err := d.wait(); !errors.Is(err, ErrForced) || exit.Code != 130 || exit.Signal != "INT" {
		t.Errorf("%+v, %v; want 130 by INT", exit, err)
	}
}

// A guest that says nothing and goes.
func TestGuestGone(t *testing.T) {
	d := sit(t, nil)
	q := d.get(protocol.PathStdin)
	q.Close()
	d.cancel()
	if exit, err := d.wait(); !errors.Is(err, ErrNoExit) {
		t.Errorf("%+v, %v", exit, err)
	}
}

// Garbage ends its connection alone.
func TestGarbage(t *testing.T) {
	d := sit(t, nil)
	q, err := d.dial(protocol.Preface{Version: protocol.Version, Kind: protocol.KindRun, Token: d.token})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	if _, err := q.Write([]byte("GET / HTTP/1.1\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	if _, err := q.Read(make([]byte, 1)); err != io.EOF && !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("the connection stays: %v", err)
	}
	d.fakeGuest.exit(protocol.Exit{Code: 1})
	if exit, err := d.wait(); err != nil || exit.Code != 1 {
		t.Errorf("%+v, %v", exit, err)
	}
}

// Input from a file, and none at all.
func TestInputKinds(t *testing.T) {
	file, err := os.CreateTemp(t.TempDir(), "in")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteString("from a file"); err != nil {
		t.Fatal(err)
	}
	if _, err := file.Seek(0, 0); err != nil {
		t.Fatal(err)
	}
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for want, in := range map[string]*os.File{"from a file": file, "": null} {
		d := sit(t, func(c *Config) { c.Stdin = in })
		q := d.get(protocol.PathStdin)
		if got, err := io.ReadAll(q.r); err != nil || string(got) != want {
			t.Errorf("input %q, %v; want %q", got, err, want)
		}
		q.Close()
	}
}
