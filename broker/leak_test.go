package broker

import (
	"io"
	"math/rand/v2"
	"net/http"
	"testing"
	"time"

	"torno.internal/protocol"
)

// TestAbruptEnds ends streams at every point of an exchange, and lets the upstream do so too. No descriptor stays open.
func TestAbruptEnds(t *testing.T) {
	_, _, stream := opened(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/socket":
			realtime(w, r)
		case "/cut":
			w.WriteHeader(200)
			_, _ = io.WriteString(w, "some")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		case "/early":
			w.WriteHeader(413)
		default:
			_, _ = io.Copy(w, r.Body)
		}
	}), generous)
	p := stream()
	if _, _, err := p.ask(get("/"), ""); err != nil {
		t.Fatal(err)
	}
	p.Close()
	time.Sleep(200 * time.Millisecond)
	before := openFiles(t)
	rnd := rand.New(rand.NewPCG(1, 2))
	paths := []string{"/", "/cut", "/early", "/socket"}
	for i := range 200 {
		p := stream()
		req := get(paths[i%len(paths)])
		if req.Method = "POST"; req.Path == "/socket" {
			req.Method, req.Protocol = "CONNECT", "websocket"
		}
		steps := []func(){
			func() { _ = p.w.WriteRequest(req) },
			func() { _ = p.w.Flush() },
			func() { _, _ = io.WriteString(p.w, "content") },
			func() { _ = p.w.Flush() },
			func() {
				_ = p.SetReadDeadline(time.Now().Add(20 * time.Millisecond)) // a server may want all of the request first
				_ = p.r.ReadResponse(new(protocol.Response))
			},
			func() { _ = p.w.Close(nil) },
			func() { time.Sleep(time.Duration(rnd.IntN(3)) * time.Millisecond) },
		}
		for _, step := range steps[:rnd.IntN(len(steps)+1)] {
			step()
		}
		p.Close()
	}
	const kept = 64 // idle connections to the upstream, and the server's ends of them
	deadline := time.Now().Add(10 * time.Second)
	for openFiles(t)-before > 2*kept {
		if time.Now().After(deadline) {
			t.Fatalf("%d descriptors more than before", openFiles(t)-before)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
