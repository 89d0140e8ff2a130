package run

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"torno.internal/protocol"
	"torno.internal/protocol/bhttp"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "terminal" {
		os.Exit(terminalChild(os.Args[2], os.Args[3]))
	}
	goleak.VerifyTestMain(m)
}

// A fakeGuest speaks the guest's side of the run channel to the Serve under test.
type fakeGuest struct {
	t     *testing.T
	addr  string
	token protocol.Token
}

// A stream of its own for one request.
type request struct {
	net.Conn
	r *bhttp.Reader
	w *bhttp.Writer
}

// dial opens a stream and presents the token.
func (g *fakeGuest) dial(p protocol.Preface) (*request, error) {
	c, err := net.Dial("unix", g.addr)
	if err != nil {
		return nil, err
	}
	if _, err = c.Write(p.AppendTo(nil)); err == nil {
		err = protocol.ReadPrefaceReply(c)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return &request{c, bhttp.NewReader(c), bhttp.NewWriter(c)}, nil
}

// open sends a request's head.
func (g *fakeGuest) open(method, path string) *request {
	g.t.Helper()
	q, err := g.dial(protocol.Preface{Version: protocol.Version, Kind: protocol.KindRun, Token: g.token})
	if err != nil {
		g.t.Fatal(err)
	}
	head := protocol.Request{Method: method, Scheme: protocol.Scheme, Authority: protocol.RunAuthority, Path: path}
	if err := errors.Join(q.w.WriteRequest(&head), q.w.Flush()); err != nil {
		g.t.Fatal(err)
	}
	return q
}

func (g *fakeGuest) get(path string) *request {
	g.t.Helper()
	q := g.open("GET", path)
	if status, err := q.finish(); err != nil || status != 200 {
		g.t.Fatalf("GET %s: status %d, %v", path, status, err)
	}
	return q
}

// finish ends the request and returns the response's status.
func (q *request) finish() (int, error) {
	if err := q.w.Close(nil); err != nil {
		return 0, err
	}
	var head protocol.Response
	err := q.r.ReadResponse(&head)
	return head.Status, err
}

// refused sends a request without content in one piece, and returns the status that it is refused with.
func (g *fakeGuest) refused(method, path string) (int, error) {
	g.t.Helper()
	q, err := g.dial(protocol.Preface{Version: protocol.Version, Kind: protocol.KindRun, Token: g.token})
	if err != nil {
		return 0, err
	}
	defer q.Close()
	head := protocol.Request{Method: method, Scheme: protocol.Scheme, Authority: protocol.RunAuthority, Path: path}
	if err := q.w.WriteRequest(&head); err != nil {
		return 0, err
	}
	return q.finish()
}

// send writes content at once.
func (q *request) send(b []byte) error {
	if _, err := q.w.Write(b); err != nil {
		return err
	}
	return q.w.Flush()
}

// post sends a whole request.
func (g *fakeGuest) post(path string, body []byte) {
	g.t.Helper()
	q := g.open("POST", path)
	defer q.Close()
	if err := q.send(body); err != nil {
		g.t.Fatal(err)
	}
	if status, err := q.finish(); err != nil || status != 200 {
		g.t.Fatalf("POST %s: status %d, %v", path, status, err)
	}
}

func (g *fakeGuest) exit(e protocol.Exit) {
	g.t.Helper()
	b, err := json.Marshal(e)
	if err != nil {
		g.t.Fatal(err)
	}
	g.post(protocol.PathExit, b)
}

// event reads the next event from a stream of them.
func (q *request) event() (protocol.RunEvent, error) {
	var line []byte
	var one [1]byte
	for {
		if _, err := io.ReadFull(q.r, one[:]); err != nil {
			return protocol.RunEvent{}, err
		}
		if one[0] == '\n' {
			break
		}
		line = append(line, one[0])
	}
	var e protocol.RunEvent
	return e, json.Unmarshal(line, &e)
}

// A desk is the person's end of a run: standard streams as pipes, and the Serve under test.
type desk struct {
	*fakeGuest
	in      *os.File // writes standard input
	out     *os.File // reads standard output
	errs    *os.File
	signals chan os.Signal
	cancel  context.CancelFunc
	done    chan struct{}
	exit    protocol.Exit
	err     error
	config  Config
}

// sit starts Serve. change may adapt its configuration.
func sit(t *testing.T, change func(*Config)) *desk {
	t.Helper()
	dir, err := os.MkdirTemp("", "tr")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	ln, err := net.Listen("unix", filepath.Join(dir, "r"))
	if err != nil {
		t.Fatal(err)
	}
	d := &desk{
		fakeGuest: &fakeGuest{t, ln.Addr().String(), protocol.Token{1, 2, 3}},
		signals:   make(chan os.Signal, 4), done: make(chan struct{}),
	}
	pipe := func() (r, w *os.File) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close(); w.Close() })
		return r, w
	}
	d.config = Config{Listener: ln, Token: d.token, Signals: d.signals, Log: slog.New(slog.DiscardHandler)}
	d.config.Stdin, d.in = pipe()
	d.out, d.config.Stdout = pipe()
	d.errs, d.config.Stderr = pipe()
	if change != nil {
		change(&d.config)
	}
	var ctx context.Context
	ctx, d.cancel = context.WithCancel(context.Background())
	go func() {
		d.exit, d.err = Serve(ctx, d.config)
		close(d.done)
	}()
	t.Cleanup(func() { d.cancel(); <-d.done })
	return d
}

// wait waits for Serve to return.
func (d *desk) wait() (protocol.Exit, error) {
	d.t.Helper()
	select {
	case <-d.done:
		return d.exit, d.err
	case <-time.After(time.Minute):
		d.t.Fatal("Serve does not return")
		return protocol.Exit{}, nil
	}
}

// collect reads f to its end in the background.
func collect(f io.Reader) func() []byte {
	var b []byte
	var wg sync.WaitGroup
	wg.Go(func() { b, _ = io.ReadAll(f) })
	return func() []byte { wg.Wait(); return b }
}

// lines returns n lines that tell their number.
func lines(n int) []byte {
	var b []byte
	for i := range n {
		b = fmt.Appendf(b, "line %d of standard output\n", i)
	}
	return b
}
