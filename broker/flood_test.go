package broker

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mdlayher/vsock"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// TestAttack10SilentFlood opens streams that say nothing, far more than a session may have: the broker takes up a bounded
// number of them, and another session does not notice.
func TestAttack10SilentFlood(t *testing.T) {
	const flood = 1500
	d := newDesk(t, nil)
	bad, good := d.session("a"), d.session("b")
	before := openFiles(t)
	for range flood {
		c, err := net.Dial("unix", strings.TrimPrefix(bad.Broker, "unix://"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	taken := func() int { return openFiles(t) - before - flood }
	for last := -1; taken() != last; time.Sleep(50 * time.Millisecond) {
		last = taken()
	}
	if n := taken(); n <= 0 || n > maxConns {
		t.Errorf("%d streams were taken up of %d, at most %d may be", n, flood, maxConns)
	}
	if _, err := d.hello(good.Broker, 1); err != nil {
		t.Errorf("another session: %v", err)
	}
}

// TestAttack29CodedFlood holds coded answers open, each of which needs a decoder's memory: a session has few at once, and
// further ones once those have ended.
func TestAttack29CodedFlood(t *testing.T) {
	end := make(chan struct{})
	_, _, stream := opened(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		defer z.Close()
		_, _ = io.WriteString(z, "plain")
		_ = z.Flush()
		w.(http.Flusher).Flush()
		if r.URL.Path == "/hold" {
			<-end
		}
	}), generous)
	var held []*peer
	for i := range maxDecoding + 3 {
		p := stream()
		var resp protocol.Response
		if err := p.w.WriteRequest(get("/hold")); err != nil {
			t.Fatal(err)
		}
		if err := p.w.Close(nil); err != nil {
			t.Fatal(err)
		}
		if err := p.r.ReadResponse(&resp); err != nil {
			t.Fatal(err)
		}
		if i < maxDecoding {
			held = append(held, p)
		} else if resp.Fields.Get(protocol.FieldReason) != "streams_exhausted" {
			t.Errorf("answer %d: %+v", i, resp)
		}
	}
	close(end)
	for _, p := range held {
		if b, err := io.ReadAll(p.r); err != nil || string(b) != "plain" {
			t.Errorf("%q, %v", b, err)
		}
		p.Close()
	}
	deadline := time.Now().Add(10 * time.Second)
	for range maxDecoding {
		for {
			resp, body, err := stream().ask(get("/"), "")
			if err == nil && resp.Status == 200 && body == "plain" {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("after the flood: %d %q %v", resp.Status, body, err)
			}
		}
	}
}

// TestAttack10FloodOnVSOCK opens streams that say nothing from one VM, on the listener that all VMs share: those of the
// others are taken up all the same.
func TestAttack10FloodOnVSOCK(t *testing.T) {
	machines := &vmListener{conns: make(chan net.Conn), done: make(chan struct{})}
	d := newVSOCKDesk(t, machines)
	var sessions [2]control.SessionCreated
	for i := range sessions {
		req := vmOf("a")
		req.CID = 42 + uint32(i)
		d.must(d.call("POST", control.PathSessions, req, &sessions[i]))
	}
	stop := make(chan struct{})
	flooded := make(chan int)
	go func() {
		n := 0
		defer func() { flooded <- n }()
		for {
			guest, host := net.Pipe()
			defer guest.Close()
			select {
			case machines.conns <- &vmConn{host, vsock.Addr{ContextID: 42, Port: 900}}:
				n++
			case <-stop:
				host.Close()
				return
			}
			if n > 2*maxConns { // enough, if none of them held the listener up
				time.Sleep(time.Millisecond)
			}
		}
	}()
	time.Sleep(500 * time.Millisecond) // shorter than a stream may be silent
	begun := time.Now()
	p, err := d.open(machines.dial(43, 900), protocol.KindHello, nil)
	if err == nil {
		_, err = p.hello(1, sessions[1].Boot)
	}
	if took := time.Since(begun); err != nil || took > 3*time.Second {
		t.Errorf("another VM was served after %v, %v", took, err)
	}
	close(stop)
	if n := <-flooded; n <= maxConns {
		t.Errorf("only %d streams were opened, so nothing was flooded", n)
	}
}

// TestAttack10FloodOfEvents is refused again and again in a way that is recorded: the session's budget bounds the records,
// and another's are not concerned.
func TestAttack10FloodOfEvents(t *testing.T) {
	d := newDesk(t, nil)
	d.stop()
	d.cfg.Operator.Limits.AuditRecordsPerSecond = 1
	d.start()
	s := d.session("a")
	if _, err := d.hello(s.Broker, 1); err != nil {
		t.Fatal(err)
	}
	for range 60 {
		if _, err := d.hello(s.Broker, 2); err == nil {
			t.Fatal("another guest was let in")
		}
	}
	if n := d.events(s.ID, "hello_refused"); n == 0 || n > 40 {
		t.Errorf("%d records of 60 refusals, of which 10 and one a second may be", n)
	}
}

// TestAttack37FloodOfLog brings about what is logged, as often and as long as it can. What it has logged is bounded, the
// next line says how much that was, and another session is heard.
func TestAttack37FloodOfLog(t *testing.T) {
	var logged lockedBuffer
	d := newDesk(t, nil)
	d.stop()
	d.cfg.Log = slog.New(slog.NewTextHandler(&logged, nil))
	d.start()
	bad, good := d.session("a"), d.session("b")
	before := len(logged.String())
	for range 600 {
		if _, err := d.dial(bad.Broker, protocol.KindForward, nil); err == nil {
			t.Fatal("let in without a token")
		}
	}
	if n := strings.Count(logged.String(), "session="+bad.ID); n < logBurst/2 || n > 300 {
		t.Errorf("%d lines of 600", n)
	}
	p, err := d.dial(good.Broker, protocol.KindHello, nil)
	d.must(err)
	body, err := json.Marshal(protocol.HelloRequest{Nonce: make([]byte, protocol.NonceSize), Guest: strings.Repeat("g", 60<<10)})
	d.must(err)
	_, _, err = p.ask(&protocol.Request{Method: "POST", Scheme: "torno", Authority: "broker", Path: protocol.PathHello}, string(body))
	d.must(err)
	if !strings.Contains(logged.String(), "msg=hello session="+good.ID) {
		t.Error("another session's hello is not logged")
	}
	if n := len(logged.String()) - before; n > 300*400+2*maxAttr {
		t.Errorf("%d bytes are logged", n)
	}
	time.Sleep(time.Second)
	_, _ = d.dial(bad.Broker, protocol.KindForward, nil)
	for range 100 {
		if strings.Contains(logged.String(), "left_out=") {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Error("nothing says how much was left out")
}

// A lockedBuffer is one that a broker may write while a test reads.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
