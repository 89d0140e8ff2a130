// Package ssh lets a workload log in by SSH with keys that never leave the host. It speaks the agent's protocol
// (draft-ietf-sshm-ssh-agent) for listing and signing, and nothing else of it, and it reads the part of an SSH
// connection that is not encrypted (RFC 4253).
//
// An agent signs whatever session id it is shown, so that whoever talks a workload into asking could log in from
// anywhere. This one signs for connections alone that it has seen: the client says by session-bind@openssh.com which
// key exchange it has made, and the host's signature in that must be, byte for byte, one that went through an open
// tunnel of the session to a host whose key is known.
package ssh

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/crypto/ssh"

	"torno.internal/protocol"
	"torno.internal/protocol/secret"
)

// minRSA is the shortest modulus of an RSA key, in bits.
const minRSA = 2048

// A Key is a private key of the session and where it may be used. The value is the caller's.
type Key struct {
	Name     string // of the secret
	Version  int
	Value    secret.Value // a private key as OpenSSH writes it
	Audience []protocol.Authority
	Known    KnownHosts // of the audience
	User     string     // who it may log in as; empty: anybody
}

// covers reports whether the key may be used at a, whose host key is hostKey.
func (k *Key) covers(a protocol.Authority, hostKey []byte) bool {
	return slices.Contains(k.Audience, a) && k.Known.Has(a, hostKey)
}

// public returns the public key in wire format.
func (k *Key) public() ([]byte, error) {
	var blob []byte
	return blob, k.use(func(s ssh.AlgorithmSigner) error {
		blob = s.PublicKey().Marshal()
		return nil
	})
}

// use calls f with the private key, which is not kept.
func (k *Key) use(f func(ssh.AlgorithmSigner) error) error {
	return k.Value.Use(func(b []byte) error {
		key, err := parse(b)
		if err != nil {
			return err
		}
		signer, err := ssh.NewSignerFromKey(key)
		if err != nil {
			return errors.New("not a key that can sign")
		}
		s, ok := signer.(ssh.AlgorithmSigner)
		if !ok {
			return errors.New("not a key that can choose its hash")
		}
		defer wipe(key)
		return f(s)
	})
}

// Check reports why value is not a private key that can be used. It does not quote it.
func Check(value []byte) error {
	key, err := parse(value)
	if err != nil {
		return err
	}
	wipe(key)
	return nil
}

// parse reads a private key: ed25519, ECDSA or RSA, without a passphrase.
func parse(value []byte) (any, error) {
	key, err := ssh.ParseRawPrivateKey(value)
	var locked *ssh.PassphraseMissingError
	switch {
	case errors.As(err, &locked):
		return nil, errors.New("the key has a passphrase; torno secrets set asks for it")
	case err != nil:
		return nil, errors.New("not a private key as ssh-keygen writes it") // the cause might quote it
	}
	switch k := key.(type) {
	case *ed25519.PrivateKey, *ecdsa.PrivateKey:
		return key, nil
	case *rsa.PrivateKey:
		if k.N.BitLen() < minRSA {
			return nil, fmt.Errorf("an RSA key of %d bits, at least %d are wanted", k.N.BitLen(), minRSA)
		}
		return key, nil
	}
	return nil, fmt.Errorf("a key of type %T; ed25519, ECDSA and RSA are wanted", key)
}

// wipe overwrites what of a key can be reached, which is nothing of ECDSA's.
func wipe(key any) {
	switch k := key.(type) {
	case *ed25519.PrivateKey:
		secret.Wipe(*k)
	case *rsa.PrivateKey:
		clear(k.D.Bits())
		for _, p := range k.Primes {
			clear(p.Bits())
		}
	}
}

// Private returns the numbers that make a private key private, one behind the other and in memory of their own: what a
// search for it must find. The rest of the file, the public key above all, is for everybody to see.
func Private(value secret.Value) (private secret.Value, err error) {
	err = value.Use(func(b []byte) error {
		key, err := parse(b)
		if err != nil {
			return err
		}
		defer wipe(key)
		var numbers []byte
		switch k := key.(type) {
		case *ed25519.PrivateKey:
			numbers = k.Seed()
		case *ecdsa.PrivateKey:
			numbers, err = k.Bytes()
		case *rsa.PrivateKey:
			numbers = k.D.Bytes()
			for _, p := range k.Primes {
				numbers = append(numbers, p.Bytes()...)
			}
		}
		private = secret.New(numbers)
		return err
	})
	return private, err
}
