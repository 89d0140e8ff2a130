package session

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"slices"
	"time"

	"torno.internal/protocol"
)

const organization = "torno"

// newCA makes the CA of session id (RFC 5280 §4.2.1.9). It signs server certificates for any name, which
// does no harm: it is trusted in one VM and nowhere else, its key stays on the host, and it can make no
// other CA. It lives as long as a session can.
func newCA(id string, created time.Time) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{Organization: []string{organization}, CommonName: "torno session " + id},
		NotBefore:             created.Add(-protocol.LeafBackdate),
		NotAfter:              created.Add(protocol.SessionLifetime),
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, fmt.Errorf("making the session's CA: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, err
	}
	return cert, key, nil
}

// An issuer is what is kept in memory of a session's CA certificate: parsed it takes five times as much, and there may be
// ten thousand sessions.
type issuer struct {
	der, subject, keyID []byte // subject and keyID in DER as they stand in it
	notAfter            time.Time
}

func issuerOf(c *x509.Certificate) issuer {
	return issuer{der: c.Raw, subject: c.RawSubject, keyID: slices.Clone(c.SubjectKeyId), notAfter: c.NotAfter}
}

// parent is what x509.CreateCertificate needs to know of who signs.
func (i *issuer) parent() *x509.Certificate {
	return &x509.Certificate{Raw: i.der, RawSubject: i.subject, SubjectKeyId: i.keyID, NotAfter: i.notAfter}
}

// parseCA reads a CA back. Without keyDER, as an ended session has none, the key is nil.
func parseCA(certDER, keyDER []byte) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	cert, err := x509.ParseCertificate(certDER)
	if err != nil {
		return nil, nil, fmt.Errorf("CA certificate: %w", err)
	}
	if len(keyDER) == 0 {
		return cert, nil, nil
	}
	parsed, err := x509.ParsePKCS8PrivateKey(keyDER)
	if err != nil {
		return nil, nil, errors.New("CA key is malformed") // the cause might quote it
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(cert.PublicKey) {
		return nil, nil, errors.New("CA key and certificate do not belong together")
	}
	return cert, key, nil
}
