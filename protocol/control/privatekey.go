package control

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"torno.internal/protocol/secret"
)

// A KeyKind is what a key must be for an algorithm to sign with it.
type KeyKind uint8

// The kinds. The zero value is that of an algorithm that nobody knows.
const (
	KeyShared KeyKind = iota + 1 // bytes that both sides know
	KeyRSA                       // of 2048 bits or more
	KeyP256                      // a curve's (FIPS 186-5)
	KeyP384
	KeyEd25519 // RFC 8032
)

// minRSA is how many bits an RSA key must have.
const minRSA = 2048

// algKinds are the kinds of key of all algorithms: those of JWS (RFC 7518 §3.1, RFC 8037) and of HTTP Message Signatures
// (RFC 9421 §3.3).
var algKinds = map[string]KeyKind{
	"RS256": KeyRSA, "RS384": KeyRSA, "RS512": KeyRSA, "PS256": KeyRSA, "ES256": KeyP256, "ES384": KeyP384, "EdDSA": KeyEd25519,
	"HS256": KeyShared, "HS384": KeyShared, "HS512": KeyShared,
	"rsa-pss-sha512": KeyRSA, "rsa-v1_5-sha256": KeyRSA, "ecdsa-p256-sha256": KeyP256, "ecdsa-p384-sha384": KeyP384, "ed25519": KeyEd25519, algHMAC: KeyShared,
}

// KindOf returns what a key must be for the algorithm called alg.
func KindOf(alg string) KeyKind { return algKinds[alg] }

// String says what the kind is, for people.
func (k KeyKind) String() string {
	switch k {
	case KeyShared:
		return "a shared key"
	case KeyRSA:
		return "an RSA key"
	case KeyP256:
		return "a key on the curve P-256"
	case KeyP384:
		return "a key on the curve P-384"
	case KeyEd25519:
		return "an Ed25519 key"
	}
	return "no key"
}

// ParsePrivateKey reads a private key in PEM that signs: PKCS #8, or the older forms of RSA and of curves. Its errors don't quote it.
func ParsePrivateKey(value []byte) (crypto.Signer, KeyKind, error) {
	if err := checkArmour(value); err != nil {
		return nil, 0, err
	}
	block, _ := pem.Decode(value)
	defer secret.Wipe(block.Bytes)
	var parsed any
	var err error
	switch block.Type {
	case "RSA PRIVATE KEY":
		parsed, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		parsed, err = x509.ParseECPrivateKey(block.Bytes)
	default:
		parsed, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	}
	private, ok := parsed.(crypto.Signer)
	if err != nil || !ok {
		return nil, 0, errors.New("the private key is damaged, or of a kind that does not sign")
	}
	switch k := private.(type) {
	case *rsa.PrivateKey:
		if k.N.BitLen() < minRSA {
			return nil, 0, fmt.Errorf("an RSA key of %d bits; verifiers want %d or more", k.N.BitLen(), minRSA)
		}
		return k, KeyRSA, nil
	case *ecdsa.PrivateKey:
		switch k.Curve {
		case elliptic.P256():
			return k, KeyP256, nil
		case elliptic.P384():
			return k, KeyP384, nil
		}
	case ed25519.PrivateKey:
		return k, KeyEd25519, nil
	}
	return nil, 0, errors.New("the private key is of a kind that no algorithm here signs with")
}

// checkArmour accepts one private key in PEM, whatever it is, that is not encrypted.
func checkArmour(value []byte) error {
	block, _ := pem.Decode(value)
	if block == nil || !strings.HasSuffix(block.Type, "PRIVATE KEY") {
		return errors.New("the value is not a private key in PEM, which begins with -----BEGIN PRIVATE KEY-----")
	}
	if strings.HasPrefix(block.Type, "ENCRYPTED") || block.Headers["DEK-Info"] != "" {
		return errors.New("the private key is encrypted; decrypt it first (openssl pkey -in KEY -out -)")
	}
	return nil
}

// checkKey accepts a private key in PEM that fits the parameter alg, if there is one.
func checkKey(in Injector, value []byte) error {
	_, kind, err := ParsePrivateKey(value)
	if alg := in.Param("alg"); err == nil && alg != "" && KindOf(alg) != kind {
		return fmt.Errorf("the private key is %s, and %s signs with %s", kind, alg, KindOf(alg))
	}
	return err
}
