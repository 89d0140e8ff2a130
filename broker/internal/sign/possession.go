package sign

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"

	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// A Possession is a key that somebody proves to hold (DPoP, RFC 9449 §4). It is immutable and safe for concurrent use.
type Possession struct {
	Thumbprint string // of the public key (RFC 7638)

	key    key
	header string // of proofs, encoded
}

// NewPossession returns one of a new key for alg, ES256 or EdDSA.
func NewPossession(alg string) (*Possession, error) {
	a, ok := jwtAlgorithms[alg]
	if !ok {
		return nil, fmt.Errorf("%q is no algorithm of a JWT", alg)
	}
	switch a.kind {
	case control.KeyP256:
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		return possession(alg, key{algorithm: a, private: k})
	case control.KeyEd25519:
		_, k, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, err
		}
		return possession(alg, key{algorithm: a, private: k})
	}
	return nil, errNoPossession
}

// ParsePossession returns the one of a private key in PEM, which must be of the kind that alg signs with.
func ParsePossession(alg string, value []byte) (*Possession, error) {
	a, ok := jwtAlgorithms[alg]
	if !ok || a.kind == control.KeyShared {
		return nil, errNoPossession
	}
	k, err := parseKey(value, a, "")
	if err != nil {
		return nil, err
	}
	return possession(alg, k)
}

var errNoPossession = errors.New("no algorithm for proofs")

func possession(alg string, k key) (*Possession, error) {
	jwk, err := publicJWK(k.private.Public())
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(jwk))
	encode := base64.RawURLEncoding.EncodeToString
	return &Possession{encode(sum[:]), k, encode([]byte(`{"typ":"dpop+jwt","alg":"` + alg + `","jwk":` + jwk + `}`))}, nil
}

// publicJWK returns a public key as its thumbprint is taken of (RFC 7638 §3): required members alone, in order.
func publicJWK(key crypto.PublicKey) (string, error) {
	encode := base64.RawURLEncoding.EncodeToString
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		point, err := k.Bytes() // 4, x, y
		if err != nil || k.Curve != elliptic.P256() {
			return "", errNoPossession
		}
		n := (len(point) - 1) / 2
		return fmt.Sprintf(`{"crv":"P-256","kty":"EC","x":"%s","y":"%s"}`, encode(point[1:1+n]), encode(point[1+n:])), nil
	case ed25519.PublicKey:
		return fmt.Sprintf(`{"crv":"Ed25519","kty":"OKP","x":"%s"}`, encode(k)), nil
	}
	return "", errNoPossession
}

// Sign returns a proof that makes claims.
func (p *Possession) Sign(claims any) ([]byte, error) {
	payload, err := json.Marshal(claims)
	if err != nil {
		return nil, err
	}
	proof := make([]byte, 0, len(p.header)+base64.RawURLEncoding.EncodedLen(len(payload))+128)
	proof = base64.RawURLEncoding.AppendEncode(append(append(proof, p.header...), '.'), payload)
	signature, err := p.key.sign(proof)
	if err != nil {
		return nil, err
	}
	return base64.RawURLEncoding.AppendEncode(append(proof, '.'), signature), nil
}

// PEM returns the private key (PKCS #8), for the caller to wipe.
func (p *Possession) PEM() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(p.key.private)
	if err != nil {
		return nil, err
	}
	defer secret.Wipe(der)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
