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
	"math/big"
	"os"
	"time"
)

// upstreamHost is the name that every subject is asked for.
const upstreamHost = "api.bench.example"

// credential is what every subject must add, and the upstream asks for.
const credential = "sk-bench-8d1c5e0b7f4a42e69b3f6a0d9c2e71b4a5f8e3d2"

// A pki is the CA that upstream and yardsticks are trusted by, and their one leaf, as PEM files.
type pki struct {
	ca, cert, key string
}

// writePKI makes a CA and an ECDSA P-256 leaf for upstreamHost and writes them below dir.
func writePKI(dir string) (pki, error) {
	files := pki{ca: dir + "/ca.pem", cert: dir + "/cert.pem", key: dir + "/key.pem"}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return pki{}, err
	}
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return pki{}, err
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench CA"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: upstreamHost}, DNSNames: []string{upstreamHost},
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		return pki{}, err
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, &leafKey.PublicKey, caKey)
	if err != nil {
		return pki{}, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(leafKey)
	if err != nil {
		return pki{}, err
	}
	for _, f := range []struct {
		path, kind string
		der        []byte
		mode       os.FileMode
	}{
		{files.ca, "CERTIFICATE", caDER, 0o644}, {files.cert, "CERTIFICATE", leafDER, 0o644}, {files.key, "PRIVATE KEY", keyDER, 0o600},
	} {
		if err := os.WriteFile(f.path, pem.EncodeToMemory(&pem.Block{Type: f.kind, Bytes: f.der}), f.mode); err != nil {
			return pki{}, err
		}
	}
	return files, nil
}

// serverTLS is what upstream and ReverseProxy serve: TLS 1.3 with X25519 alone, as the OpenSSL below nginx
// knows no ML-KEM, and HTTP/1.1.
func serverTLS(cert, key string) (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13,
		CurvePreferences: []tls.CurveID{tls.X25519}, NextProtos: []string{"http/1.1"},
	}, nil
}

// clientTLS trusts the CA in the file, or with an empty path what the environment says.
func clientTLS(ca string) (*tls.Config, error) {
	c := &tls.Config{
		ServerName: upstreamHost, MinVersion: tls.VersionTLS13,
		CurvePreferences: []tls.CurveID{tls.X25519}, NextProtos: []string{"http/1.1"},
	}
	if ca == "" {
		return c, nil
	}
	pemBytes, err := os.ReadFile(ca)
	if err != nil {
		return nil, err
	}
	c.RootCAs = x509.NewCertPool()
	if !c.RootCAs.AppendCertsFromPEM(pemBytes) {
		return nil, fmt.Errorf("no certificate in %q", ca)
	}
	return c, nil
}
