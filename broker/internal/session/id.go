package session

import (
	"crypto/rand"
	"time"
)

// idSize is the length of a session's id in characters.
const idSize = 26

const crockford32 = "0123456789abcdefghjkmnpqrstvwxyz"

// newID returns a ULID in lower case: ten characters of milliseconds since 1970, so that ids sort by
// time, and sixteen random ones, the last eight of which name the session's socket.
func newID(now time.Time) string {
	var id [idSize]byte
	ms := uint64(now.UnixMilli())
	for i := 9; i >= 0; i-- {
		id[i] = crockford32[ms&31]
		ms >>= 5
	}
	_, _ = rand.Read(id[10:]) // never fails: crypto/rand ends the process instead
	for i := 10; i < idSize; i++ {
		id[i] = crockford32[id[i]&31]
	}
	return string(id[:])
}
