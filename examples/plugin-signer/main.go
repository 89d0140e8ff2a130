// Command plugin-signer is an example of a signer, in a module of its own: it signs with Ed25519 and ECDSA keys that the
// operator's file gives it, and that torno's broker only ever passes on. One that asks a KMS or an HSM looks the same.
//
//	[plugins.example.files]
//	deploy = "/etc/torno/deploy.pem"      # torno secrets set … --source example:deploy --as rfc9421:alg=ed25519,…
package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"

	"torno.internal/broker/plugin"
)

func main() { plugin.Serve(&signer{}) }

type signer struct{ keys map[string]crypto.Signer }

// Configure reads the keys.
func (s *signer) Configure(_ context.Context, c plugin.Config) error {
	s.keys = map[string]crypto.Signer{}
	for name, file := range c.Files {
		block, _ := pem.Decode(file)
		if block == nil {
			return fmt.Errorf("%w: the file %s is not a private key in PEM", plugin.ErrInvalid, name)
		}
		key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		signs, ok := key.(crypto.Signer)
		if err != nil || !ok {
			return fmt.Errorf("%w: the file %s is not a private key that signs", plugin.ErrInvalid, name)
		}
		s.keys[name] = signs
	}
	return nil
}

// Sign signs a message.
func (s *signer) Sign(ctx context.Context, r plugin.SignRequest) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	switch key := s.keys[r.Key].(type) {
	case nil:
		return nil, plugin.ErrNotFound
	case ed25519.PrivateKey:
		if r.Algorithm == plugin.Ed25519 {
			return ed25519.Sign(key, r.Message), nil
		}
	case *ecdsa.PrivateKey:
		if r.Algorithm == plugin.ECDSAP256 && key.Curve.Params().BitSize == 256 {
			digest := sha256.Sum256(r.Message)
			x, y, err := ecdsa.Sign(rand.Reader, key, digest[:])
			if err != nil {
				return nil, err
			}
			return append(x.FillBytes(make([]byte, 32)), y.FillBytes(make([]byte, 32))...), nil
		}
	}
	return nil, fmt.Errorf("%w: the key %q does not sign by %s", plugin.ErrInvalid, r.Key, r.Algorithm)
}
