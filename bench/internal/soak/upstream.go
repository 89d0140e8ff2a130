package soak

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"torno.internal/protocol/websocket"
)

// host is the name that guests ask for.
const host = "api.soak.example"

// An upstream is a TLS server that speaks HTTP/1.1 and HTTP/2 and takes only requests with the credential. It remembers
// who asked for what below /n/, which nobody asks for twice.
type upstream struct {
	server *http.Server
	addr   string
	ca     string // PEM file

	mu      sync.Mutex
	reached map[string]int       // by path below /n/
	wrong   int                  // requests whose credential was none of those that may come
	keys    map[string]time.Time // what may come as a credential, and until when; zero: always
}

// newUpstream serves on a free port of the loopback until stop.
func newUpstream(dir string) (*upstream, error) {
	cert, pemBytes, err := certificate()
	if err != nil {
		return nil, err
	}
	u := &upstream{ca: dir + "/ca.pem", reached: map[string]int{}, keys: map[string]time.Time{}}
	if err := os.WriteFile(u.ca, pemBytes, 0o644); err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	u.addr = ln.Addr().String()
	mux := http.NewServeMux()
	mux.HandleFunc("/n/", u.numbered)
	mux.HandleFunc("/echo", u.echo)
	mux.HandleFunc("/events", u.events)
	mux.HandleFunc("/socket", u.socket)
	u.server = &http.Server{
		Handler: mux, TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12},
		ErrorLog: log.New(io.Discard, "", 0), // clients that are killed
	}
	go func() { _ = u.server.ServeTLS(ln, "", "") }()
	return u, nil
}

func (u *upstream) stop() { _ = u.server.Close() }

// certificate makes one for host, which is its own CA.
func certificate() (tls.Certificate, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "soak"}, DNSNames: []string{host},
		NotBefore: time.Now().Add(-lifetime), NotAfter: time.Now().Add(lifetime),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

// lifetime is how far the certificate reaches both ways: clocks jump here.
const lifetime = 10 * 365 * 24 * time.Hour

// expect adds a value that may come as a credential.
func (u *upstream) expect(value string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.keys["Bearer "+value] = time.Time{}
}

// retire says that a value may not come any more, but for a little while: what was on its way.
func (u *upstream) retire(value string, after time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.keys["Bearer "+value] = time.Now().Add(after)
}

// known reports whether the request has one credential, and the right one, and counts it otherwise.
func (u *upstream) known(r *http.Request) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	v := r.Header.Values("Authorization")
	if len(v) == 1 {
		if until, ok := u.keys[v[0]]; ok && (until.IsZero() || time.Now().Before(until)) {
			return true
		}
	}
	u.wrong++
	return false
}

// numbered remembers the path.
func (u *upstream) numbered(w http.ResponseWriter, r *http.Request) {
	u.mu.Lock()
	u.reached[r.URL.Path]++
	u.mu.Unlock()
	if !u.known(r) {
		http.Error(w, "no credential", http.StatusUnauthorized)
		return
	}
	fmt.Fprintln(w, "ok", r.URL.Path)
}

// total is how many requests came for paths below /n/.
func (u *upstream) total() (n int) {
	for _, times := range u.seen() {
		n += times
	}
	return n
}

// seen returns a copy of what was asked for below /n/.
func (u *upstream) seen() map[string]int {
	u.mu.Lock()
	defer u.mu.Unlock()
	all := make(map[string]int, len(u.reached))
	for path, n := range u.reached {
		all[path] = n
	}
	return all
}

// echo repeats the content.
func (u *upstream) echo(w http.ResponseWriter, r *http.Request) {
	if !u.known(r) {
		http.Error(w, "no credential", http.StatusUnauthorized)
		return
	}
	_ = http.NewResponseController(w).EnableFullDuplex()
	_, _ = io.Copy(w, r.Body)
}

// eventGap is the time between two events.
const eventGap = 20 * time.Millisecond

// events sends events until the client goes away.
func (u *upstream) events(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	rc := http.NewResponseController(w)
	tick := time.NewTicker(eventGap)
	defer tick.Stop()
	for i := 0; ; i++ {
		if _, err := fmt.Fprintf(w, "data: {\"n\":%d,\"delta\":\"some words of an answer that streams\"}\n\n", i); err != nil || rc.Flush() != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-tick.C:
		}
	}
}

// frameSize is the length of the one frame that clients send: text of four bytes with a mask of zeros (RFC 6455 §5.2).
const frameSize = 10

// socket takes a WebSocket up and answers each frame with its text, without a mask.
func (u *upstream) socket(w http.ResponseWriter, r *http.Request) {
	if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") || !u.known(r) {
		http.Error(w, "no WebSocket", http.StatusBadRequest)
		return
	}
	c, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer c.Close()
	fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\n", websocket.Accept(r.Header.Get("Sec-WebSocket-Key")))
	err = rw.Flush()
	for frame := make([]byte, frameSize); err == nil; {
		if _, err = io.ReadFull(rw, frame); err == nil {
			_, err = c.Write(append([]byte{0x81, 4}, frame[frameSize-4:]...))
		}
	}
}
