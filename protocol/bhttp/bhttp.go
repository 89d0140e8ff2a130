// Package bhttp implements Binary HTTP (RFC 9292) in two forms. Reader and Writer speak the strict
// stream profile in which guest and broker exchange messages over one connection (SPEC.md §4): framing
// indicators 2 and 3 alone, minimal integers, lower-case names, no padding, nothing omitted. Message is
// the whole of RFC 9292 for one message in memory.
package bhttp

import (
	"errors"
	"fmt"
)

// ErrMalformed means that the bytes are not a message of the profile, or that a message to be written
// would not be one. The connection is of no further use to a Reader.
var ErrMalformed = errors.New("malformed message")

// ErrTooLarge means that a head is over one of the limits in package protocol.
var ErrTooLarge = errors.New("message head too large")

// errOrder is a mistake of the caller: the calls of one message came out of order.
var errOrder = errors.New("bhttp: called out of order")

// Framing indicators (RFC 9292 §3.3).
const (
	knownRequest          = 0
	knownResponse         = 1
	indeterminateRequest  = 2
	indeterminateResponse = 3
)

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

func tooLarge(what string, limit int) error {
	return fmt.Errorf("%w: %s over %d", ErrTooLarge, what, limit)
}
