package workload

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"torno.internal/protocol"
	"torno.internal/protocol/bhttp"
)

// TestMain makes the test binary the stage and the probe too.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case Stage:
			os.Exit(Exec())
		case "probe":
			os.Exit(probe(os.Args[2]))
		}
	}
	os.Exit(m.Run())
}

// A fakeHost is the host's side of the run channel.
type fakeHost struct {
	t        *testing.T
	listener net.Listener
	token    protocol.Token
	stdin    io.Reader     // what GET /v1/stdin carries
	events   chan any      // protocol.RunEvent, or raw bytes; closed ends them
	slow     time.Duration // between two reads of standard output

	workspace []byte // what GET /v1/workspace/in carries

	mu       sync.Mutex
	conns    []net.Conn
	out, err bytes.Buffer
	back     bytes.Buffer   // what came to /v1/workspace/out, or to a published port's client
	finished map[string]int // order in which posts ended
	exit     *protocol.Exit
	gone     chan struct{}
}

func newHost(t *testing.T, stdin io.Reader) *fakeHost {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "r"))
	if err != nil {
		t.Fatal(err)
	}
	h := &fakeHost{t: t, listener: l, token: protocol.Token{7}, stdin: stdin, events: make(chan any, 8), finished: map[string]int{}, gone: make(chan struct{})}
	go h.accept() // the test is process 1 of its namespace: what it leaves ends with it
	t.Cleanup(h.hangUp)
	return h
}

func (h *fakeHost) channel() *Channel {
	return &Channel{Token: h.token, Dial: func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", h.listener.Addr().String())
	}}
}

// hangUp closes everything, as a host that died.
func (h *fakeHost) hangUp() {
	h.listener.Close()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, c := range h.conns {
		c.Close()
	}
	select {
	case <-h.gone:
	default:
		close(h.gone)
	}
}

func (h *fakeHost) accept() {
	for {
		c, err := h.listener.Accept()
		if err != nil {
			return
		}
		h.mu.Lock()
		h.conns = append(h.conns, c)
		h.mu.Unlock()
		go func() { defer c.Close(); h.serve(c) }()
	}
}

func (h *fakeHost) serve(c net.Conn) {
	preface, err := protocol.ReadPreface(c)
	if err != nil {
		return
	}
	reply := protocol.PrefaceReply{Version: protocol.Version}
	if preface.Token != h.token || preface.Kind != protocol.KindRun {
		reply.Status = protocol.StatusToken
	}
	c.Write(reply.AppendTo(nil))
	r, w := bhttp.NewReader(c), bhttp.NewWriter(c)
	var request protocol.Request
	if err := r.ReadRequest(&request); err != nil {
		return
	}
	var content []byte
	switch request.Path {
	case protocol.PathStdout, protocol.PathStderr, protocol.PathExit, protocol.PathWorkspaceOut:
		if content, err = h.take(request.Path, r); err != nil {
			return
		}
	default:
		if strings.HasPrefix(request.Path, protocol.PathPublished) {
			h.serveClient(r, w)
			return
		}
		io.Copy(io.Discard, r)
	}
	w.WriteResponse(&protocol.Response{Status: 200})
	w.Flush()
	switch request.Path {
	case protocol.PathStdin:
		buf := make([]byte, 1000)
		for {
			n, err := h.stdin.Read(buf)
			w.Write(buf[:n])
			w.Flush()
			if err != nil {
				break
			}
		}
	case protocol.PathWorkspaceIn:
		w.Write(h.workspace)
	case protocol.PathRunEvents:
		h.sendEvents(w)
	}
	_ = content
	w.Close(nil)
}

// serveClient plays a published port's client: it says what is on standard input.
func (h *fakeHost) serveClient(r *bhttp.Reader, w *bhttp.Writer) {
	w.WriteResponse(&protocol.Response{Status: 200})
	w.Flush()
	text := make([]byte, 100)
	n, _ := h.stdin.Read(text)
	w.Write(text[:n])
	w.Close(nil)
	answer, _ := io.ReadAll(r)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.back.Write(answer)
	h.finished[protocol.PathPublished]++
}

// served waits until a client has been served, and returns what it got.
func (h *fakeHost) served() string {
	for range 500 {
		h.mu.Lock()
		n, got := h.finished[protocol.PathPublished], h.back.String()
		h.mu.Unlock()
		if n > 0 {
			return got
		}
		time.Sleep(10 * time.Millisecond)
	}
	return "nothing within 5 s"
}

func (h *fakeHost) take(path string, r io.Reader) ([]byte, error) {
	var sink io.Writer
	var exit bytes.Buffer
	switch path {
	case protocol.PathStdout:
		sink = &lockedBuffer{h, &h.out}
	case protocol.PathStderr:
		sink = &lockedBuffer{h, &h.err}
	case protocol.PathWorkspaceOut:
		sink = &lockedBuffer{h, &h.back}
	default:
		sink = &exit
	}
	buf := make([]byte, 64<<10)
	for {
		n, err := r.Read(buf)
		sink.Write(buf[:n])
		time.Sleep(h.slow)
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.finished[path] = len(h.finished) + 1
	if path == protocol.PathExit {
		h.exit = new(protocol.Exit)
		if err := json.Unmarshal(exit.Bytes(), h.exit); err != nil {
			h.t.Errorf("exit %q: %v", exit.Bytes(), err)
		}
	}
	return exit.Bytes(), nil
}

func (h *fakeHost) sendEvents(w *bhttp.Writer) {
	for {
		var e any
		select {
		case e = <-h.events:
		case <-h.gone:
			return
		}
		line, ok := e.([]byte)
		if !ok {
			line, _ = json.Marshal(e)
		}
		w.Write(append(line, '\n'))
		if w.Flush() != nil {
			return
		}
	}
}

// output waits until standard output contains want.
func (h *fakeHost) output(want string) bool {
	for range 500 {
		h.mu.Lock()
		found := bytes.Contains(h.out.Bytes(), []byte(want))
		h.mu.Unlock()
		if found {
			return true
		}
		time.Sleep(10 * time.Millisecond)
	}
	return false
}

type lockedBuffer struct {
	h *fakeHost
	b *bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.h.mu.Lock()
	defer l.h.mu.Unlock()
	return l.b.Write(p)
}

// start runs the workload against h and returns a function that waits for its end.
func (h *fakeHost) start(ctx context.Context, w protocol.Workload) func() protocol.Exit {
	ended := make(chan protocol.Exit, 1)
	go func() {
		ended <- Run(ctx, Config{Workload: w, Channel: h.channel(), PID1: true, Log: slog.New(slog.DiscardHandler)})
	}()
	return func() protocol.Exit {
		h.t.Helper()
		select {
		case exit := <-ended:
			return exit
		case <-time.After(20 * time.Second):
			h.t.Fatal("the run does not end")
			return protocol.Exit{}
		}
	}
}

// asGuest does what boot does before it starts a workload.
func asGuest(t *testing.T) {
	t.Helper()
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", "/proc", "", unix.MS_REMOUNT|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "hidepid=2"); err != nil {
		t.Fatal(err)
	}
}
