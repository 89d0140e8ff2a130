package credential

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"math/big"

	"torno.internal/broker/internal/redact"
	"torno.internal/broker/internal/ssh"
	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// Searched returns what of the secret is searched for where it must not be: all of it or, of a document with
// public parts, what is confidential in it. Wipe the parts by WipeSearched; the whole value is the Set's.
func (s Secret) Searched() []redact.Secret {
	var parts []redact.Secret
	add := func(b []byte, public ...string) {
		if len(b) > 0 {
			parts = append(parts, redact.Secret{Value: secret.New(b), Prefixes: public})
		}
	}
	_ = s.Value.Use(func(value []byte) error {
		switch in := s.Meta.Inject; in.Scheme {
		case control.SchemeSSH:
			if private, err := ssh.Private(s.Value); err == nil {
				add(private.AppendTo(nil))
				private.Wipe()
			}
		case control.SchemeSigV4, control.SchemeAWSRole:
			if k, err := control.ParseAWSKeys(value); err == nil {
				add(bytes.Clone(k.Secret))
				add(bytes.Clone(k.Token), control.SessionTokenPrefix(k.Token))
			}
		case control.SchemeHMAC:
			hmacParts(in, value, add)
		case control.SchemeAzureStorage:
			if key, err := control.ParseAccountKey(value); err == nil {
				add(bytes.Clone(value))
				add(key)
			}
		case control.SchemeAssertion, control.SchemeGitHubApp, control.SchemeOAuth2, control.SchemeClientCert, control.SchemeMessage,
			control.SchemeAWSWebIdentity, control.SchemeJWT, control.SchemeJWTRequest:
			privateNumbers(value, add)
			sharedKey(in, value, add)
		case control.SchemeGoogle, control.SchemeRefresh:
			if k, err := control.ParseGoogleKey(value); err == nil {
				privateNumbers([]byte(k.Key), add)
				privateNumbers([]byte(k.DPoPKey), add)
				add([]byte(k.ClientSecret))
				add([]byte(k.RefreshToken))
			}
		}
		return nil
	})
	if len(parts) == 0 {
		return []redact.Secret{{Value: s.Value, Prefixes: s.Preset().Prefix}}
	}
	return parts
}

// WipeSearched wipes what Searched made of s.
func (s Secret) WipeSearched(parts []redact.Secret) {
	for _, p := range parts {
		if p.Value != s.Value {
			p.Value.Wipe()
		}
	}
}

// hmacParts calls add with the key of a value, as it is written and as the bytes that it stands for, and with its passphrase.
func hmacParts(in control.Injector, value []byte, add func(b []byte, public ...string)) {
	h, err := control.ParseHMAC(in)
	if err != nil {
		return
	}
	k, err := h.ParseValue(value)
	if err != nil {
		return
	}
	text := value
	if len(k.ID) > 0 {
		text = bytes.TrimSuffix(text[len(k.ID)+1:], append([]byte(":"), k.Passphrase...))
	}
	if !bytes.Equal(text, k.Key) {
		add(bytes.Clone(text))
	}
	add(k.Key)
	add(bytes.Clone(k.Passphrase))
}

// sharedKey calls add with a shared key that is written in a coding: as it is written, and the bytes that it stands for.
func sharedKey(in control.Injector, value []byte, add func(b []byte, public ...string)) {
	coding := in.ParamOr(control.ParamKey, control.CodingRaw)
	if control.KindOf(in.Param("alg")) != control.KeyShared || coding == control.CodingRaw {
		return
	}
	if key, err := control.DecodeKey(value, coding); err == nil {
		add(bytes.Clone(value))
		add(key)
	}
}

// privateNumbers calls add with each number of a private key in PEM that nobody else knows. What surrounds
// them is the same in all keys of a kind, or public.
func privateNumbers(key []byte, add func(b []byte, public ...string)) {
	block, rest := pem.Decode(key)
	for block != nil && block.Type == "CERTIFICATE" {
		block, rest = pem.Decode(rest)
	}
	if block == nil {
		return
	}
	defer secret.Wipe(block.Bytes)
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		if k, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
			parsed = k
		} else if k, err := x509.ParseECPrivateKey(block.Bytes); err == nil {
			parsed = k
		}
	}
	switch k := parsed.(type) {
	case *rsa.PrivateKey:
		for _, n := range append([]*big.Int{k.D, k.Precomputed.Dp, k.Precomputed.Dq, k.Precomputed.Qinv}, k.Primes...) {
			if n != nil {
				add(n.Bytes())
			}
		}
	case *ecdsa.PrivateKey:
		if b, err := k.Bytes(); err == nil {
			add(b)
		}
	case ed25519.PrivateKey:
		add(k.Seed())
	}
}
