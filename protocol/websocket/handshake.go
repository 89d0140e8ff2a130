// Package websocket holds what both sides need to know of the WebSocket Protocol (RFC 6455): the handshake,
// and the frames that a server sends.
package websocket

import (
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // RFC 6455 §4.2.2 asks for it; nothing rests on its strength
	"encoding/base64"
)

// Version is the one version of the protocol, as Sec-WebSocket-Version says it.
const Version = "13"

const keySize = 16 // bytes

// NewKey returns a fresh Sec-WebSocket-Key.
func NewKey() string {
	var b [keySize]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.StdEncoding.EncodeToString(b[:])
}

// ValidKey reports whether a client's Sec-WebSocket-Key is one (RFC 6455 §4.1).
func ValidKey(key string) bool {
	b, err := base64.StdEncoding.Strict().DecodeString(key)
	return err == nil && len(b) == keySize && len(key) == base64.StdEncoding.EncodedLen(keySize) // line ends are passed over
}

// Accept returns the Sec-WebSocket-Accept that answers key (RFC 6455 §4.2.2).
func Accept(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) //nolint:gosec // as above
	return base64.StdEncoding.EncodeToString(sum[:])
}
