package run

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"torno.internal/protocol"
)

// port publishes a port and returns how to reach it.
func port(t *testing.T, c *Config) string {
	t.Helper()
	ln, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	c.Published = []Published{{ln, 8080}}
	return ln.Addr().String()
}

// A client and a server inside, both ways at once, with half-close.
func TestPublish(t *testing.T) {
	var addr string
	d := sit(t, func(c *Config) { addr = port(t, c) })
	events := d.get(protocol.PathRunEvents)
	d.get(protocol.PathStdin)
	for range 3 {
		client, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		e, err := events.event()
		if err != nil || e.Type != protocol.RunConnect || e.Port != 8080 || e.Number == 0 {
			t.Fatalf("%+v, %v", e, err)
		}
		q := d.open("POST", protocol.PathPublished+strconv.FormatUint(e.Number, 10))
		var head protocol.Response
		if err := q.r.ReadResponse(&head); err != nil || head.Status != 200 {
			t.Fatalf("%+v, %v", head, err)
		}
		ask := bytes.Repeat([]byte("ask"), 50_000)
		go func() { client.Write(ask); client.(*net.TCPConn).CloseWrite() }()
		if got, err := io.ReadAll(q.r); err != nil || !bytes.Equal(got, ask) {
			t.Errorf("the server gets %d bytes, %v", len(got), err)
		}
		if err := q.send([]byte("answer")); err != nil {
			t.Fatal(err)
		}
		if err := q.w.Close(nil); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(client); err != nil || string(got) != "answer" {
			t.Errorf("the client gets %q, %v", got, err)
		}
		client.Close()
		q.Close()
	}
}

// A client that stays, whose server has ended, does not keep a run from ending.
func TestPublishEndsWithTheRun(t *testing.T) {
	var addr string
	d := sit(t, func(c *Config) { addr = port(t, c) })
	events := d.get(protocol.PathRunEvents)
	d.get(protocol.PathStdin)
	client, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	e, err := events.event()
	if err != nil {
		t.Fatal(err)
	}
	q := d.open("POST", protocol.PathPublished+strconv.FormatUint(e.Number, 10))
	defer q.Close()
	if status, err := q.finish(); err != nil || status != 200 {
		t.Fatal(status, err)
	}
	if _, err := client.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the server's end: %v", err)
	}
	d.fakeGuest.exit(protocol.Exit{Code: 5})
	if exit, err := d.wait(); err != nil || exit.Code != 5 {
		t.Errorf("%+v, %v", exit, err)
	}
}

// Before the workload runs, and where the guest breaks off, a client is reset; nobody else's number is served.
func TestPublishRefused(t *testing.T) {
	var addr string
	d := sit(t, func(c *Config) { addr = port(t, c) })
	early, err := net.Dial("tcp", addr)
	if err == nil {
		_, err = early.Read(make([]byte, 1))
		early.Close()
	}
	if !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("before the start: %v, want a reset", err)
	}
	events := d.get(protocol.PathRunEvents)
	d.get(protocol.PathStdin)
	for path, want := range map[string]int{"1": 404, "99": 404, "": 400, "01": 400, "x": 400, "-1": 400, "1/2": 400} {
		if status, err := d.refused("POST", protocol.PathPublished+path); err != nil || status != want {
			t.Errorf("number %q: status %d, %v; want %d", path, status, err, want)
		}
	}
	client, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	e, err := events.event()
	if err != nil {
		t.Fatal(err)
	}
	d.open("POST", protocol.PathPublished+strconv.FormatUint(e.Number, 10)).Close() // as where nobody listens inside
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("broken off: %v, want a reset", err)
	}
}

// MaxPublished clients are taken; the next waits until one has gone, and is served then.
func TestPublishBound(t *testing.T) {
	var addr string
	d := sit(t, func(c *Config) { addr = port(t, c) })
	events := d.get(protocol.PathRunEvents)
	d.get(protocol.PathStdin)
	var clients, streams []net.Conn
	for range protocol.MaxPublished + 1 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		clients = append(clients, c)
	}
	take := func() {
		t.Helper()
		e, err := events.event()
		if err != nil {
			t.Fatal(err)
		}
		q := d.open("POST", protocol.PathPublished+strconv.FormatUint(e.Number, 10))
		var head protocol.Response
		if err := q.r.ReadResponse(&head); err != nil || head.Status != 200 {
			t.Fatalf("number %d: %+v, %v", e.Number, head, err)
		}
		streams = append(streams, q)
	}
	for range protocol.MaxPublished {
		take()
	}
	events.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	if e, err := events.event(); err == nil {
		t.Fatalf("one more is taken: %+v", e)
	}
	events.SetReadDeadline(time.Time{})
	streams[0].Close()
	clients[0].Close()
	take()
	if len(streams) != protocol.MaxPublished+1 {
		t.Errorf("%d streams", len(streams))
	}
}
