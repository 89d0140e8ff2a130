// Package postgres holds what a guest and a broker must both know of PostgreSQL's frontend/backend protocol, version 3:
// how a client begins, and how it is refused.
package postgres

import (
	"encoding/binary"
	"errors"
	"io"
	"strings"

	"torno.internal/protocol"
)

// MaxStartup bounds a client's first message, in bytes.
const MaxStartup = 10000 // the server's own bound

// Codes that stand where a startup message has its version.
const (
	CodeCancel = 80877102
	CodeSSL    = 80877103
	CodeGSS    = 80877104
)

// StartupHead is how many bytes a client's first message has at least: its length and its code.
const StartupHead = 8

// BeginsStartup reports whether b, the first bytes of a client, begin one of PostgreSQL's first messages.
func BeginsStartup(b []byte) bool {
	if len(b) < StartupHead || binary.BigEndian.Uint32(b) > MaxStartup {
		return false
	}
	code := binary.BigEndian.Uint32(b[4:])
	return code>>16 == 3 || code >= CodeCancel && code <= CodeGSS
}

// ReadStartup reads a client's first message:
//
//	uint32 length  uint32 code  …
func ReadStartup(r io.Reader) (code uint32, body []byte, err error) {
	var head [StartupHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n < StartupHead || n > MaxStartup {
		return 0, nil, errors.New("not the beginning of a PostgreSQL connection")
	}
	body = make([]byte, n-StartupHead)
	if _, err := io.ReadFull(r, body); err != nil {
		return 0, nil, io.ErrUnexpectedEOF
	}
	return binary.BigEndian.Uint32(head[4:]), body, nil
}

// AppendMessage appends a message of a type: its type, its length and its body.
func AppendMessage(b []byte, kind byte, body []byte) []byte {
	b = binary.BigEndian.AppendUint32(append(b, kind), uint32(4+len(body)))
	return append(b, body...)
}

// sqlStates are the codes of the SQL standard that clients may act on, by reason; all others are 08004, which says that
// the connection was rejected.
var sqlStates = map[protocol.Reason]string{
	protocol.ReasonWrongRole:       "28000",
	protocol.ReasonUpstreamAuth:    "28000",
	protocol.ReasonUnknownName:     "08001",
	protocol.ReasonConnect:         "08001",
	protocol.ReasonUpstreamTLS:     "08001",
	protocol.ReasonUpstreamTimeout: "08001",
	protocol.ReasonUnsupported:     "0A000",
	protocol.ReasonBadRequest:      "08P01",
}

// AppendRefusal appends the ErrorResponse that says reason.
func AppendRefusal(b []byte, reason protocol.Reason) []byte {
	state, ok := sqlStates[reason]
	if !ok {
		state = "08004"
	}
	fields := []string{"SFATAL", "VFATAL", "C" + state, "Mtorno: " + reason.String(), "H" + reason.Advice()}
	return AppendMessage(b, 'E', []byte(strings.Join(fields, "\x00")+"\x00\x00"))
}
