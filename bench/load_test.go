package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// newUpstream serves the canned answers to a load that trusts it. mark is added as a field to requests.
func newUpstream(t *testing.T, authorization string) (*load, target) {
	t.Helper()
	files, err := writePKI(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/json", small)
	mux.HandleFunc("/down", (&text{jsonText()}).download)
	mux.HandleFunc("/up", upload)
	mux.HandleFunc("/sse", events)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if authorization != "" {
			r.Header.Set("Authorization", authorization)
		}
		mux.ServeHTTP(w, r)
	}))
	if srv.TLS, err = serverTLS(files.cert, files.key); err != nil {
		t.Fatal(err)
	}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	config, err := clientTLS(files.ca)
	if err != nil {
		t.Fatal(err)
	}
	l := &load{config: config, kept: map[string][]*client{}, held: map[string][]*client{}}
	return l, target{"upstream", srv.Listener.Addr().String(), authorization != ""}
}

func TestOperations(t *testing.T) {
	l, up := newUpstream(t, "Bearer "+credential)
	for _, tt := range []struct {
		command
		count, latencies int
	}{
		{command{Op: opSmall, Conns: 4, Count: 10}, 40, 0},
		{command{Op: opSmall, Conns: 1, Count: 10}, 10, 10},
		{command{Op: opConnect, Conns: 3, Count: 10}, 10, 0},
		{command{Op: opDown, Bytes: 3<<20 + 17}, 1, 0},
		{command{Op: opUp, Bytes: 3<<20 + 17}, 1, 0},
		{command{Op: opEvents, Count: 5}, 5, 5},
		{command{Op: opHold, Conns: 2, Count: 6}, 6, 0},
		{command{Op: opRelease}, 6, 0},
		{command{Op: opRelease}, 0, 0},
		{command{Op: opClose}, 0, 0},
	} {
		tt.Target = up
		r, err := l.do(tt.command)
		if err != nil || r.Count != int64(tt.count) || len(r.Latency) != tt.latencies {
			t.Errorf("%s: %+v, %v", tt.Op, r, err)
		}
		for _, n := range r.Latency {
			if n <= 0 || n > 5e9 {
				t.Errorf("%s: latency of %d ns", tt.Op, n)
			}
		}
	}
	r, err := l.do(command{Op: opSmall, Target: up, Conns: 2, Millis: 50})
	if err != nil || r.Count == 0 {
		t.Errorf("small, for a time: %+v, %v", r, err)
	}
}

// A subject that does not add the credential, or the wrong one, is no subject.
func TestCredentialMissing(t *testing.T) {
	for _, authorization := range []string{"Bearer wrong", "Basic " + credential} {
		l, up := newUpstream(t, authorization)
		if _, err := l.do(command{Op: opSmall, Target: up, Conns: 1, Count: 1}); err == nil || !strings.Contains(err.Error(), "did not add the credential") {
			t.Errorf("with %q: %v", authorization, err)
		}
	}
}

// What a server answers else is an error, not a measurement.
func TestRefusedAnswers(t *testing.T) {
	l, up := newUpstream(t, "")
	k, err := dial(context.Background(), up, l.config)
	if err != nil {
		t.Fatal(err)
	}
	defer k.close()
	if err := k.exchange(request("GET", "/json", 0), smallSize+1); err == nil {
		t.Error("a short answer passes")
	}
	if err := k.exchange(request("GET", "/nothing", 0), 0); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("404: %v", err)
	}
}

// The protocol on standard input and output: one reply for each command, errors in it.
func TestServeLoad(t *testing.T) {
	dir := t.TempDir()
	files, err := writePKI(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSL_CERT_FILE", files.ca)
	var in, out bytes.Buffer
	for _, c := range []command{{Op: "dance"}, {Op: opClose}, {Op: opDown, Target: target{Dial: "127.0.0.1:1"}}} {
		if err := json.NewEncoder(&in).Encode(c); err != nil {
			t.Fatal(err)
		}
	}
	if err := serveLoad(&in, &out); err != nil {
		t.Fatal(err)
	}
	var replies []reply
	for d := json.NewDecoder(&out); d.More(); {
		var r reply
		if err := d.Decode(&r); err != nil {
			t.Fatal(err)
		}
		replies = append(replies, r)
	}
	if len(replies) != 3 || replies[0].Error == "" || replies[1].Error != "" || !strings.Contains(replies[2].Error, "refused") {
		t.Errorf("%+v", replies)
	}
	if info, err := os.Stat(filepath.Join(dir, "key.pem")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key's mode: %v, %v", info, err)
	}
}
