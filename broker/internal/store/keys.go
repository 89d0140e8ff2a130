package store

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
	"strings"

	"torno.internal/protocol/control"
	"torno.internal/protocol/seal"
	"torno.internal/protocol/secret"
)

// A key is a private key and what is derived from it.
type key struct {
	private seal.PrivateKey
	id      string
	box     cipher.AEAD
	mac     [32]byte // of manifests
}

// keys are the broker's, the newest first. There are two while one takes the other's place.
type keys []*key

func newKeys(private []seal.PrivateKey) (keys, error) {
	ks := make(keys, 0, len(private))
	for _, p := range private {
		k := &key{private: p, id: p.Public().ID()}
		err := p.Bytes().Use(func(seed []byte) error {
			if err := k.deriveBox(seed); err != nil {
				return err
			}
			mac, err := hkdf.Key(sha256.New, seed, nil, "torno store manifest v1", len(k.mac))
			copy(k.mac[:], mac)
			clear(mac)
			return err
		})
		if err != nil {
			return nil, err
		}
		ks = append(ks, k)
	}
	return ks, nil
}

func (k *key) deriveBox(seed []byte) error {
	b, err := hkdf.Key(sha256.New, seed, nil, "torno store records v1", 32)
	if err != nil {
		return err
	}
	defer clear(b)
	block, err := aes.NewCipher(b)
	if err != nil {
		return err
	}
	k.box, err = cipher.NewGCM(block)
	return err
}

// newest is what everything new is sealed, encrypted and signed with.
func (ks keys) newest() *key { return ks[0] }

// byID returns the key with an id, or nil.
func (ks keys) byID(id string) *key {
	for _, k := range ks {
		if k.id == id {
			return k
		}
	}
	return nil
}

func (ks keys) ids() string {
	ids := make([]string, len(ks))
	for i, k := range ks {
		ids[i] = k.id
	}
	return strings.Join(ids, " and ")
}

// unseal opens a sealed secret with the key that it is sealed to.
func (ks keys) unseal(sec *control.SealedSecret) (secret.Value, error) {
	k := ks.byID(sec.KeyID)
	if k == nil {
		return secret.Value{}, fmt.Errorf("%w: %s; this broker's is %s", ErrOldKey, sec.KeyID, ks.ids())
	}
	return k.private.Open(sec.Sealed, control.AssociatedData(sec.Meta, sec.KeyID))
}
