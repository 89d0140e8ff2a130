package keyring

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/crypto/argon2"

	"torno.internal/protocol/seal"
	"torno.internal/protocol/secret"
)

// A key file is
//
//	magic (8) | kind (1) | passes (4) | memory in KiB (4) | threads (1) | salt (16) | nonce (12) | seeds
//
// where seeds are one or two X-Wing seeds of 32 bytes, the newest first, encrypted with AES-256-GCM and
// bound to all that stands before them. In a file that is not encrypted everything between kind and seeds
// is zero, and the SHA-256 of the seeds follows them.
const (
	magic      = "tornkey1"
	saltSize   = 16
	nonceSize  = 12
	seedSize   = 32
	maxSeeds   = 2
	headerSize = len(magic) + 1 + 4 + 4 + 1 + saltSize + nonceSize
	maxFile    = int64(headerSize + maxSeeds*seedSize + sha256.Size)
)

var errFile = errors.New("it is damaged, or no key file of torno")

// A Kind says what a key file is encrypted under.
type Kind byte

// The kinds.
const (
	KindNone       Kind = 0 // nothing
	KindPassphrase Kind = 1 // a passphrase, by Argon2id
	KindCredential Kind = 2 // a credential that systemd hands to the service
	KindCommand    Kind = 3 // what a command prints
)

var kindNames = map[Kind]string{KindNone: "none", KindPassphrase: "passphrase", KindCredential: "credential", KindCommand: "command"}

func (k Kind) String() string { return kindNames[k] }

// A cost is what Argon2id takes.
type cost struct {
	passes  uint32
	memory  uint32 // KiB
	threads uint8
}

// defaultCost is the second recommendation of RFC 9106 §4, for where memory is short: 64 MiB.
var defaultCost = cost{passes: 3, memory: 64 << 10, threads: 4}

// Bounds on what a file may ask for: a damaged one costs neither all memory nor a day, and one that was
// changed does not make the passphrase cheap to guess.
var (
	leastCost = cost{passes: 1, memory: 19 << 10, threads: 1}
	mostCost  = cost{passes: 64, memory: 2 << 20, threads: 64}
)

func (c cost) valid() bool {
	return c.passes >= leastCost.passes && c.passes <= mostCost.passes && c.memory >= leastCost.memory &&
		c.memory <= mostCost.memory && c.threads >= leastCost.threads && c.threads <= mostCost.threads
}

// A wrapping is how the seeds are encrypted. The zero value means not at all.
type wrapping struct {
	kind Kind
	cost cost // of a passphrase; else zero
	salt [saltSize]byte
	key  secret.Value // 32 bytes, made of the holder's secret
}

// newWrapping returns a wrapping of its own salt; h nil means none.
func newWrapping(h Holder) (wrapping, error) {
	if h == nil {
		return wrapping{}, nil
	}
	w := wrapping{kind: h.Kind()}
	if w.kind == KindPassphrase {
		w.cost = defaultCost
	}
	_, _ = rand.Read(w.salt[:]) // never fails
	return w, w.derive(h)
}

// derive makes the wrapping's key of the holder's secret.
func (w *wrapping) derive(h Holder) error {
	s, err := h.Secret()
	if err != nil {
		return err
	}
	defer s.Wipe()
	return s.Use(func(b []byte) error {
		if w.kind == KindPassphrase {
			w.key = secret.New(argon2.IDKey(b, w.salt[:], w.cost.passes, w.cost.memory, w.cost.threads, 32))
			return nil
		}
		if len(b) < minSecret {
			return fmt.Errorf("the %s gives %d bytes, at least %d random ones are needed", w.kind, len(b), minSecret)
		}
		key, err := hkdf.Key(sha256.New, b, w.salt[:], "torno key file v1", 32)
		w.key = secret.New(key)
		return err
	})
}

// minSecret is the least that a credential or a command may give, in bytes.
const minSecret = 32

func (w *wrapping) aead() (cipher.AEAD, error) {
	var a cipher.AEAD
	err := w.key.Use(func(key []byte) error {
		block, err := aes.NewCipher(key)
		if err != nil {
			return err
		}
		a, err = cipher.NewGCM(block)
		return err
	})
	return a, err
}

// encodeFile returns the bytes of a key file, which the caller wipes.
func encodeFile(private []seal.PrivateKey, w *wrapping) ([]byte, error) {
	seeds := make([]byte, 0, maxSeeds*seedSize)
	defer func() { secret.Wipe(seeds) }()
	for _, k := range private {
		seeds = k.Bytes().AppendTo(seeds)
	}
	b := make([]byte, 0, maxFile)
	b = append(append(b, magic...), byte(w.kind))
	b = binary.BigEndian.AppendUint32(b, w.cost.passes)
	b = binary.BigEndian.AppendUint32(b, w.cost.memory)
	b = append(append(b, w.cost.threads), w.salt[:]...)
	var nonce [nonceSize]byte
	if w.kind == KindNone {
		b = append(append(b, nonce[:]...), seeds...)
		sum := sha256.Sum256(seeds)
		return append(b, sum[:]...), nil
	}
	a, err := w.aead()
	if err != nil {
		return nil, err
	}
	_, _ = rand.Read(nonce[:]) // never fails
	b = append(b, nonce[:]...)
	return a.Seal(b, nonce[:], seeds, bytes.Clone(b)), nil
}

// A file is a key file that was taken apart and not opened.
type file struct {
	wrapping
	head, nonce, seeds []byte // seeds as they stand
}

// decodeFile takes a key file apart. The result shares b's memory.
func decodeFile(b []byte) (*file, error) {
	if len(b) < headerSize || int64(len(b)) > maxFile || string(b[:len(magic)]) != magic {
		return nil, errFile
	}
	f := &file{head: b[:headerSize], nonce: b[headerSize-nonceSize : headerSize], seeds: b[headerSize:]}
	rest := b[len(magic):]
	f.kind = Kind(rest[0])
	f.cost = cost{binary.BigEndian.Uint32(rest[1:]), binary.BigEndian.Uint32(rest[5:]), rest[9]}
	copy(f.salt[:], rest[10:])
	_, known := kindNames[f.kind]
	overhead := sha256.Size
	if f.kind != KindNone {
		overhead = 16 // of AES-GCM
	}
	n := len(f.seeds) - overhead
	switch {
	case !known, n != seedSize && n != maxSeeds*seedSize:
		return nil, errFile
	case f.kind == KindPassphrase && !f.cost.valid(), f.kind != KindPassphrase && f.cost != cost{}:
		return nil, fmt.Errorf("%w: Argon2id with %d passes, %d KiB, %d threads", errFile, f.cost.passes, f.cost.memory, f.cost.threads)
	case f.kind == KindNone && (f.salt != [saltSize]byte{} || !bytes.Equal(f.nonce, make([]byte, nonceSize))):
		return nil, errFile
	}
	return f, nil
}

// unwrap asks the holder of the file's kind for its secret.
func (f *file) unwrap(holders []Holder) (wrapping, error) {
	w := f.wrapping
	if w.kind == KindNone {
		return w, nil
	}
	for _, h := range holders {
		if h != nil && h.Kind() == w.kind {
			return w, w.derive(h)
		}
	}
	if w.kind == KindPassphrase {
		return wrapping{}, ErrLocked
	}
	return wrapping{}, fmt.Errorf("it is protected by a %s, and broker.toml names none under [key]", w.kind)
}

// open decrypts the seeds.
func (f *file) open(w *wrapping) ([]seal.PrivateKey, error) {
	seeds, err := f.decrypt(w)
	if err != nil {
		return nil, err
	}
	defer secret.Wipe(seeds)
	var private []seal.PrivateKey
	for i := 0; i+seedSize <= len(seeds); i += seedSize {
		k, err := seal.ParsePrivateKey(seeds[i : i+seedSize])
		if err != nil {
			return nil, err
		}
		private = append(private, k)
	}
	return private, nil
}

func (f *file) decrypt(w *wrapping) ([]byte, error) {
	if w.kind == KindNone {
		n := len(f.seeds) - sha256.Size
		if sum := sha256.Sum256(f.seeds[:n]); !bytes.Equal(sum[:], f.seeds[n:]) {
			return nil, errFile
		}
		return bytes.Clone(f.seeds[:n]), nil
	}
	a, err := w.aead()
	if err != nil {
		return nil, err
	}
	seeds, err := a.Open(nil, f.nonce, f.seeds, f.head)
	if err != nil {
		return nil, ErrWrong
	}
	return seeds, nil
}
