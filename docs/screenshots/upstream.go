// Command screenshots stands in for the services that the pictures' agents call: it writes a CA and listens on
// loopback. Each host has a mood of its own.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log"
	"math/big"
	mrand "math/rand/v2"
	"net/http"
	"os"
	"strings"
	"time"
)

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: screenshots 127.0.0.1:PORT CA.pem")
	}
	if err := serve(os.Args[1], os.Args[2]); err != nil {
		log.Fatal(err)
	}
}

func serve(addr, ca string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	now := time.Now()
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "pictures"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, root, root, &key.PublicKey, key)
	if err != nil {
		return err
	}
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		return err
	}
	s := &http.Server{Addr: addr, Handler: http.HandlerFunc(answer), ReadHeaderTimeout: time.Minute, TLSConfig: &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			leaf := &x509.Certificate{SerialNumber: big.NewInt(now.UnixNano()), DNSNames: []string{h.ServerName}, NotBefore: root.NotBefore, NotAfter: root.NotAfter}
			der, err := x509.CreateCertificate(rand.Reader, leaf, root, &key.PublicKey, key)
			return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
		},
	}}
	return s.ListenAndServeTLS("", "")
}

func answer(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.HasPrefix(r.Host, "api.anthropic"):
		time.Sleep(time.Duration(150+mrand.IntN(500)) * time.Millisecond)
	case strings.HasPrefix(r.Host, "api.github"):
		time.Sleep(time.Duration(20+mrand.IntN(60)) * time.Millisecond)
	}
	if r.URL.Path == "/v1/flaky" {
		w.WriteHeader(http.StatusBadGateway)
	}
	fmt.Fprintln(w, strings.Repeat("ok ", 1+mrand.IntN(4000)))
}
