package broker

import (
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// parrot repeats the credential nine times, which is too often, keeps what is opened at /socket, /hold and /upload
// open, and tells what arrives at the last.
func parrot(arrived chan<- string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/socket":
			realtime(w, r)
		case "/hold":
			w.WriteHeader(200)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		case "/upload":
			b := make([]byte, 64)
			for {
				n, err := r.Body.Read(b)
				if n > 0 {
					arrived <- string(b[:n])
				}
				if err != nil {
					return
				}
			}
		default:
			_, _ = io.WriteString(w, strings.Repeat(r.Header.Get("Authorization")+"\n", 9))
		}
	})
}

// TestAttack30SuspendedGoesOn lets a session be suspended that has a WebSocket, an answer and an upload open: none of
// them is of use any more, within a second.
func TestAttack30SuspendedGoesOn(t *testing.T) {
	arrived := make(chan string, 16)
	d, s, stream := opened(t, parrot(arrived), control.Limits{})
	_, socket := socketTo(t, stream(), "/socket")
	hold, upload := stream(), stream()
	var resp protocol.Response
	d.must(hold.w.WriteRequest(get("/hold")))
	d.must(hold.w.Close(nil))
	d.must(hold.r.ReadResponse(&resp))
	d.must(upload.w.WriteRequest(&protocol.Request{Method: "POST", Scheme: "https", Authority: "example.com", Path: "/upload"}))
	send := func() error {
		if _, err := io.WriteString(upload.w, "more"); err != nil {
			return err
		}
		return upload.w.Flush()
	}
	d.must(send())
	if got := <-arrived; got != "more" { // the control: it does arrive before
		t.Fatalf("%q arrived", got)
	}
	if _, _, err := stream().ask(get("/"), ""); err == nil {
		t.Fatal("an answer with 9 runs came to a clean end")
	}
	begun := time.Now()
	if _, err := io.ReadAll(hold.r); err == nil {
		t.Error("the open answer ended as if it were whole")
	}
	if _, err := io.ReadAll(socket); err == nil {
		t.Error("the WebSocket ended as if it were whole")
	}
	for send() == nil && time.Since(begun) < 5*time.Second {
		time.Sleep(time.Millisecond)
	}
	if took := time.Since(begun); took > protocol.RevokeDeadline {
		t.Errorf("cut after %v", took)
	}
	select {
	case got := <-arrived:
		t.Errorf("%q arrived after the suspension", got)
	default:
	}
	var i control.SessionInfo
	if d.must(d.call("GET", control.PathSession+s.ID, nil, &i)); i.State != "suspended" {
		t.Errorf("state %q", i.State)
	}
}

// TestAttack30SuspendedWhileDialling lets a session be suspended while the connection for another of its requests is
// being made: the credential stays here.
func TestAttack30SuspendedWhileDialling(t *testing.T) {
	arrived := make(chan string, 1)
	up := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/late" {
			arrived <- r.URL.Path
		}
		_, _ = io.WriteString(w, strings.Repeat(r.Header.Get("Authorization")+"\n", 9))
	}))
	greeted, suspended, first := make(chan struct{}), make(chan struct{}), atomic.Bool{}
	up.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		if !first.Swap(true) {
			close(greeted)
			<-suspended
		}
		return nil, nil
	}}
	up.StartTLS()
	defer up.Close()
	d := newDesk(t, up)
	d.must(d.set("a", "KEY", testKey, 1))
	s := d.session("a")
	h, err := d.hello(s.Broker, 1)
	d.must(err)
	late, err := d.dial(s.Broker, protocol.KindForward, h.Token)
	d.must(err)
	d.must(late.w.WriteRequest(get("/late")))
	d.must(late.w.Close(nil))
	<-greeted
	p, err := d.dial(s.Broker, protocol.KindForward, h.Token)
	d.must(err)
	if _, _, err := p.ask(get("/"), ""); err == nil {
		t.Fatal("an answer with 9 runs came to a clean end")
	}
	close(suspended)
	var resp protocol.Response
	if d.must(late.r.ReadResponse(&resp)); resp.Fields.Get(protocol.FieldReason) == "" {
		t.Errorf("answer %+v, want a refusal", resp)
	}
	select {
	case path := <-arrived:
		t.Errorf("%s arrived after the suspension", path)
	default:
	}
}
