package store

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
)

// A manifest says what the store holds after one commit: the SHA-256 of every page, which in turn have the
// SHA-256 of every entry. It is authenticated under a key derived from the broker's own, so that nobody
// else can write one; an older one that is put back is found by the audit, which has the hash of each.
//
//	format (1) | key id | commit | SHA-256 of the manifest before (32) | sessions | changes | pages | HMAC-SHA256 (32)
//
// Numbers are unsigned varints in their shortest spelling, strings have their length before them, changes
// and pages their count. Pages stand in ascending order of their keys.
type manifest struct {
	ledger  string // whose manifest it is: bound to the MAC, not in the bytes
	keyID   string
	commit  uint64            // 1 for the first change of the store
	prev    digest            // of the manifest before, with its MAC
	floor   uint64            // of agents: the commit that the ledger of sessions was at, at least
	changes []Change          // what this commit did
	pages   map[string]digest // by the page's key
}

// A digest is a SHA-256.
type digest = [sha256.Size]byte

const manifestFormat = 1

// Bounds on a manifest. What is on disk is authenticated before it is read, so they only keep a file that
// was damaged from costing memory.
const (
	maxPages   = 1 << 20
	maxChanges = 1 << 18
	maxText    = 256 // bytes of one string
)

// A Change is one thing that a commit did.
type Change struct {
	Event   string // as it is recorded
	Agent   string
	Name    string // of the secret; empty: the event is about the agent, or about the store
	Version int
}

var errManifest = errors.New("the manifest is malformed")

// encode returns the manifest with its MAC.
func (m *manifest) encode(mac *[32]byte) []byte {
	b := []byte{manifestFormat}
	b = appendText(b, m.keyID)
	b = append(binary.AppendUvarint(b, m.commit), m.prev[:]...)
	b = binary.AppendUvarint(b, m.floor)
	b = binary.AppendUvarint(b, uint64(len(m.changes)))
	for _, c := range m.changes {
		b = appendText(appendText(appendText(b, c.Event), c.Agent), c.Name)
		b = binary.AppendUvarint(b, uint64(c.Version))
	}
	keys := make([]string, 0, len(m.pages))
	for k := range m.pages {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	b = slices.Grow(b, len(keys)*(sha256.Size+16)+sha256.Size)
	b = binary.AppendUvarint(b, uint64(len(keys)))
	for _, k := range keys {
		sum := m.pages[k]
		b = append(appendText(b, k), sum[:]...)
	}
	return append(b, sign(mac, m.ledger, b)...)
}

func sign(mac *[32]byte, ledger string, b []byte) []byte {
	h := hmac.New(sha256.New, mac[:])
	h.Write(append([]byte(ledger), 0))
	h.Write(b)
	return h.Sum(nil)
}

// manifestKey returns the id of the key that the manifest says it is signed with.
func manifestKey(b []byte) (string, error) {
	r := reader{b: b}
	if r.octet() != manifestFormat {
		return "", errManifest
	}
	id := r.text()
	if r.bad {
		return "", errManifest
	}
	return id, nil
}

// decodeManifest reads what encode wrote. Bytes that are not exactly that are refused.
func decodeManifest(b []byte, ledger string, mac *[32]byte) (*manifest, error) {
	if len(b) < sha256.Size {
		return nil, errManifest
	}
	body, tag := b[:len(b)-sha256.Size], b[len(b)-sha256.Size:]
	if !hmac.Equal(tag, sign(mac, ledger, body)) {
		return nil, errManifest
	}
	m, err := parseManifest(body)
	if err != nil {
		return nil, err
	}
	m.ledger = ledger
	return m, nil
}

// parseManifest reads a manifest without its MAC.
func parseManifest(body []byte) (*manifest, error) {
	r := reader{b: body}
	if r.octet() != manifestFormat {
		return nil, errManifest
	}
	m := &manifest{keyID: r.text(), commit: r.number(1<<63 - 1)}
	copy(m.prev[:], r.take(sha256.Size))
	m.floor = r.number(1<<63 - 1)
	for range r.number(maxChanges) {
		c := Change{Event: r.text(), Agent: r.text(), Name: r.text(), Version: int(r.number(maxVersion))}
		if r.bad {
			return nil, errManifest
		}
		m.changes = append(m.changes, c)
	}
	n := r.number(min(maxPages, uint64(len(r.b)/sha256.Size)))
	m.pages = make(map[string]digest, n)
	last := ""
	for i := range n {
		key, sum := r.text(), r.take(sha256.Size)
		if r.bad || i > 0 && strings.Compare(key, last) <= 0 {
			return nil, errManifest
		}
		m.pages[key], last = digest(sum), key
	}
	if r.bad || len(r.b) > 0 {
		return nil, errManifest
	}
	return m, nil
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// A reader reads an encoding from its beginning. After the first mistake it is bad and everything that it
// returns is empty.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if r.bad || n > len(r.b) {
		r.bad = true
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) octet() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

// number reads a number of at most limit in its shortest spelling.
func (r *reader) number(limit uint64) uint64 {
	v, n := binary.Uvarint(r.b)
	if r.bad || n <= 0 || v > limit || n > 1 && r.b[n-1] == 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) text() string { return string(r.take(int(r.number(maxText)))) }
