package main

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// smallSize is the size of the small answer in bytes.
const smallSize = 200

// serveUpstream is the subcommand that every subject forwards to. It prints its address and ends with
// its standard input.
func serveUpstream(args []string) error {
	flags := flag.NewFlagSet("upstream", flag.ContinueOnError)
	cert := flags.String("cert", "", "certificate")
	key := flags.String("key", "", "its key")
	if err := flags.Parse(args); err != nil {
		return err
	}
	config, err := serverTLS(*cert, *key)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/json", small)
	mux.HandleFunc("/down", (&text{jsonText()}).download)
	mux.HandleFunc("/up", upload)
	mux.HandleFunc("/sse", events)
	return serveUntilEOF(config, mux)
}

// serveUntilEOF serves HTTPS on a free port of the loopback, whose address it prints, until standard
// input ends.
func serveUntilEOF(config *tls.Config, handler http.Handler) error {
	ln, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute}
	ctx, ended := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		ended()
		srv.Close()
	}()
	fmt.Println(ln.Addr())
	if err := srv.Serve(ln); ctx.Err() == nil {
		return err
	}
	return nil
}

// small answers smallSize bytes of JSON that say whether the credential came.
func small(w http.ResponseWriter, r *http.Request) {
	said := "none"
	if v := r.Header.Values("Authorization"); len(v) == 1 && v[0] == "Bearer "+credential {
		said = "right"
	} else if len(v) > 0 {
		said = "wrong"
	}
	b := fmt.Appendf(make([]byte, 0, smallSize), `{"id":"obj_0123456789abcdef","object":"thing","credential":%q,"text":"`, said)
	for len(b) < smallSize-2 {
		b = append(b, 'x')
	}
	b = append(b, '"', '}')
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	_, _ = w.Write(b)
}

// A text is what is downloaded, over and over.
type text struct{ b []byte }

// jsonText is a mebibyte of what APIs answer.
func jsonText() []byte {
	rnd := rand.New(rand.NewPCG(3, 4))
	words := []string{"account", "balance", "currency", "created", "metadata", "customer", "https://api.example/v1/items", "text"}
	var b []byte
	for len(b) < 1<<20 {
		id := make([]byte, 12)
		for i := range id {
			id[i] = byte(rnd.Uint32())
		}
		b = fmt.Appendf(b, `{"id":"obj_%s","%s":%d,"%s":"%s \"%s\"\n","ok":true},`, base64.RawURLEncoding.EncodeToString(id),
			words[rnd.IntN(len(words))], rnd.IntN(1e9), words[rnd.IntN(len(words))], words[rnd.IntN(len(words))], words[rnd.IntN(len(words))])
	}
	return b[:1<<20]
}

func (t *text) download(w http.ResponseWriter, r *http.Request) {
	const piece = 64 << 10
	n, err := strconv.ParseInt(r.URL.Query().Get("n"), 10, 64)
	if err != nil || n < 0 {
		http.Error(w, "n is missing", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	for at := int64(0); at < n; at += piece {
		from := at % int64(len(t.b))
		if _, err := w.Write(t.b[from : from+min(piece, n-at)]); err != nil {
			return
		}
	}
}

// upload answers how many bytes came. What was to be signed anew must have been.
func upload(w http.ResponseWriter, r *http.Request) {
	if a := r.Header.Get("Authorization"); strings.HasPrefix(a, "AWS4-") && !strings.Contains(a, "Credential="+signingID+"/") {
		http.Error(w, "signed with another key", http.StatusForbidden)
		return
	}
	n, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{r.Body}, make([]byte, 64<<10))
	if err != nil {
		return
	}
	fmt.Fprintf(w, "%d", n)
}

// eventGap is the time between two events.
const eventGap = 5 * time.Millisecond

// events sends n events, each with the time of its sending on the clock that all processes share.
func events(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.Atoi(r.URL.Query().Get("n"))
	flusher, ok := w.(http.Flusher)
	if err != nil || !ok {
		http.Error(w, "n is missing", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	flusher.Flush()
	tick := time.NewTicker(eventGap)
	defer tick.Stop()
	for i := range n {
		<-tick.C
		if _, err := fmt.Fprintf(w, "data: {\"n\":%d,\"delta\":\"some words of an answer that streams\",\"t\":%d}\n\n", i, monotonic()); err != nil {
			return
		}
		flusher.Flush()
	}
}
