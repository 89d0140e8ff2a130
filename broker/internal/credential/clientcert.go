package credential

import (
	"crypto/tls"
	"errors"
	"strings"
	"sync"

	"torno.internal/protocol"
	"torno.internal/protocol/secret"
)

// clientCert sends no field: the secret is a key and its certificate, which the TLS handshake proves. The workload's
// own fields in which servers behind a proxy look for a certificate go.
type clientCert struct{}

func (clientCert) Strip(name string) bool {
	name = protocol.FoldName(name)
	for _, prefix := range []string{"client-cert", "x-client-cert", "ssl-client", "x-ssl-", "x-forwarded-client-cert", "x-forwarded-tls-client", "x-amzn-mtls-", "x-arr-clientcert"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return isAuthField(name)
}

func (clientCert) Apply(secret.Value, *protocol.Request) ([]Field, error) { return nil, nil }

// An Identity is who the broker is in TLS handshakes, by one version of a secret. Connections and tickets of two
// Identities are never shared. It is safe for concurrent use.
type Identity struct {
	value secret.Value
	once  sync.Once
	cert  tls.Certificate
	err   error
}

var errNoIdentity = errors.New("the client certificate can't be read")

// Certificate returns the certificate and its key.
func (i *Identity) Certificate() (*tls.Certificate, error) {
	i.once.Do(func() {
		i.err = i.value.Use(func(b []byte) (err error) {
			if i.cert, err = tls.X509KeyPair(b, b); err != nil {
				return errNoIdentity // what it says may quote the value
			}
			return nil
		})
	})
	if i.err != nil {
		return nil, i.err
	}
	return &i.cert, nil
}

// Identity returns who the broker is towards hosts that get the secret; nil for nobody.
func (u *Use) Identity() *Identity { return u.identity }
