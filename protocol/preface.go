package protocol

import (
	"errors"
	"fmt"
	"io"
)

// Kind says what a stream carries. It is fixed by the preface for the stream's whole life, so a
// request that the workload wrote can never be read as a channel request.
type Kind uint8

// The kinds of stream.
const (
	KindHello   Kind = 1 // one /v1/hello, no token yet
	KindChannel Kind = 2 // requests to torno://broker
	KindForward Kind = 3 // the workload's http and https exchanges, and tunnels
	KindRun     Kind = 4 // requests to torno://run, on the run port
)

func (k Kind) String() string {
	switch k {
	case KindHello:
		return "hello"
	case KindChannel:
		return "channel"
	case KindForward:
		return "forward"
	case KindRun:
		return "run"
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// TokenSize is the length in bytes of channel and run tokens.
const TokenSize = 32

// A Token proves that a stream comes from the guest that said hello. It guards no secret: who holds
// it may ask for what the session may ask for anyway.
type Token [TokenSize]byte

// String keeps tokens out of logs.
func (Token) String() string { return "[redacted]" }

// GoString keeps tokens out of %#v.
func (Token) GoString() string { return "[redacted]" }

// Status is the broker's answer to a preface.
type Status uint8

// The preface statuses; the table is closed.
const (
	StatusOK        Status = iota
	StatusVersion          // version outside the accepted range; the answer's version is the broker's own
	StatusKind             // kind unknown, or not served on this port
	StatusToken            // token wrong, or from another session
	StatusNoSession        // no live session on this socket or CID
	StatusHelloUsed        // hello was answered and its token has been used
	StatusBusy             // MaxStreams are open
	statusCount
)

var statusText = [statusCount]string{
	"ok", "unsupported protocol version", "unknown stream kind", "wrong token",
	"no session here", "hello already used", "too many streams",
}

func (s Status) String() string {
	if s >= statusCount {
		return fmt.Sprintf("status(%d)", uint8(s))
	}
	return statusText[s]
}

// A Preface opens every stream (SPEC.md §2):
//
//	0        5         7      8                               40
//	+--------+---------+------+-------------------------------+
//	| magic  | version | kind | token (zeros on hello)        |
//	+--------+---------+------+-------------------------------+
//
// Integers are big-endian.
type Preface struct {
	Version uint16
	Kind    Kind
	Token   Token
}

// A PrefaceReply answers a Preface (SPEC.md §2):
//
//	0        5         7        8
//	+--------+---------+--------+
//	| magic  | version | status |
//	+--------+---------+--------+
type PrefaceReply struct {
	Version uint16
	Status  Status
}

// Sizes on the wire, in bytes.
const (
	PrefaceSize      = 5 + 2 + 1 + TokenSize
	PrefaceReplySize = 5 + 2 + 1
)

const magic = "torno"

// ErrMagic means that the peer does not speak this protocol at all.
var ErrMagic = errors.New("not a torno stream")

// A StatusError is a preface reply other than StatusOK.
type StatusError struct {
	Status  Status
	Version uint16 // the broker's version
}

func (e *StatusError) Error() string {
	if e.Status == StatusVersion {
		return fmt.Sprintf("%v (theirs is %d, ours is %d)", e.Status, e.Version, Version)
	}
	return e.Status.String()
}

// AppendTo appends the preface as it travels.
func (p Preface) AppendTo(b []byte) []byte {
	b = append(b, magic...)
	b = append(b, byte(p.Version>>8), byte(p.Version), byte(p.Kind))
	return append(b, p.Token[:]...)
}

// ReadPreface reads one preface and nothing after it. Version and kind are not judged here.
func ReadPreface(r io.Reader) (Preface, error) {
	var b [PrefaceSize]byte
	if err := readMagic(r, b[:]); err != nil {
		return Preface{}, err
	}
	return Preface{
		Version: uint16(b[5])<<8 | uint16(b[6]),
		Kind:    Kind(b[7]),
		Token:   Token(b[8:]),
	}, nil
}

// AppendTo appends the reply as it travels.
func (p PrefaceReply) AppendTo(b []byte) []byte {
	b = append(b, magic...)
	return append(b, byte(p.Version>>8), byte(p.Version), byte(p.Status))
}

// ReadPrefaceReply reads one reply and nothing after it. A status other than StatusOK is returned as
// a *StatusError.
func ReadPrefaceReply(r io.Reader) error {
	var b [PrefaceReplySize]byte
	if err := readMagic(r, b[:]); err != nil {
		return err
	}
	if s := Status(b[7]); s != StatusOK {
		return &StatusError{Status: s, Version: uint16(b[5])<<8 | uint16(b[6])}
	}
	return nil
}

// readMagic fills b, looking at the magic before it waits for the rest.
func readMagic(r io.Reader, b []byte) error {
	if _, err := io.ReadFull(r, b[:len(magic)]); err != nil {
		return err
	}
	if string(b[:len(magic)]) != magic {
		return ErrMagic
	}
	_, err := io.ReadFull(r, b[len(magic):])
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}
