// Package http1 reads and writes HTTP/1.1 messages (RFC 9112), more strictly than the RFC asks: whatever
// two parsers are known to read differently is refused. The guest's front reads the workload's requests
// with it, the broker reads upstream responses.
//
// Refused beyond what is plainly malformed: bare LF and bare CR, obs-fold, white space before a colon,
// Content-Length together with Transfer-Encoding, Content-Length repeated even if equal, any transfer
// coding but chunked, transfer codings on HTTP/1.0, chunk extensions, more than one empty line before a
// request, HTTP/0.9, and a Host that is absent or repeated.
package http1

import (
	"errors"
	"fmt"

	"torno.internal/protocol"
)

// An Error means that the peer's bytes are not a message that this package accepts. The connection is
// of no further use. Detail is for logs; what a peer sent in the wrong place may be a credential, so it
// quotes nothing that is malformed.
type Error struct {
	Status int             // what a server answers: 400, 414, 417, 431, 501, 505; 502 for a response
	Reason protocol.Reason // what the exchange is refused with
	Detail string
}

func (e *Error) Error() string { return e.Detail }

var (
	// errOrder is a mistake of the caller: the calls of one message came out of order.
	errOrder     = errors.New("http1: called out of order")
	errDiscarded = errors.New("http1: message was discarded")
)

// Mistakes of the caller about the length it announced.
var (
	ErrLong  = errors.New("http1: content longer than announced")
	ErrShort = errors.New("http1: content shorter than announced")
)

func bad(format string, args ...any) error { return badStatus(400, format, args...) }

func badStatus(status int, format string, args ...any) error {
	reason := protocol.ReasonBadRequest
	if status == 501 {
		reason = protocol.ReasonUnsupported
	}
	return &Error{status, reason, fmt.Sprintf(format, args...)}
}

func fieldsTooLarge(what string, limit int) error {
	return badStatus(431, "%s over %d", what, limit)
}

// upstream turns a request's Error into the one of a response.
func upstream(err error) error {
	if e, ok := err.(*Error); ok {
		return &Error{502, protocol.ReasonUpstreamProtocol, e.Detail}
	}
	return err
}
