package front

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
)

// h2Preface is what an HTTP/2 client sends before anything else (RFC 9113 §3.4).
const h2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// Sizes of frames, in bytes. Both sides keep to the smallest maximum that there is.
const (
	h2HeaderSize = 9
	h2MaxFrame   = 16 << 10
)

// An h2Kind is the type of a frame (RFC 9113 §6).
type h2Kind uint8

const (
	h2Data h2Kind = iota
	h2Headers
	h2Priority
	h2Reset
	h2Settings
	h2PushPromise
	h2Ping
	h2GoAway
	h2WindowUpdate
	h2Continuation
)

// Flags of frames.
const (
	h2Ack         = 0x1 // of SETTINGS and PING
	h2EndStream   = 0x1 // of DATA and HEADERS
	h2EndHeaders  = 0x4
	h2Padded      = 0x8
	h2HasPriority = 0x20
)

// An h2Code says why a stream or connection ended (RFC 9113 §7).
type h2Code uint32

const (
	h2NoError            h2Code = 0x0
	h2ProtocolError      h2Code = 0x1
	h2InternalError      h2Code = 0x2
	h2FlowControlError   h2Code = 0x3
	h2StreamClosed       h2Code = 0x5
	h2FrameSizeError     h2Code = 0x6
	h2RefusedStream      h2Code = 0x7
	h2Cancel             h2Code = 0x8
	h2CompressionError   h2Code = 0x9
	h2EnhanceYourCalm    h2Code = 0xb
	h2HTTP11Required     h2Code = 0xd
	h2MaxWindow                 = 1<<31 - 1 // bytes
	h2DefaultWindow             = 1<<16 - 1 // bytes
	h2SettingEntry              = 6         // bytes of one setting
	h2PriorityFieldsSize        = 5         // bytes
)

// An h2Error ends a stream, or the whole connection if stream is 0.
type h2Error struct {
	code   h2Code
	stream uint32
	why    string
}

func (e *h2Error) Error() string {
	if e.stream == 0 {
		return fmt.Sprintf("http/2: %s (code %d)", e.why, e.code)
	}
	return fmt.Sprintf("http/2 stream %d: %s (code %d)", e.stream, e.why, e.code)
}

// connError ends the connection.
func connError(code h2Code, format string, args ...any) error {
	return &h2Error{code: code, why: fmt.Sprintf(format, args...)}
}

// streamError ends the stream id.
func streamError(id uint32, code h2Code, format string, args ...any) error {
	return &h2Error{code: code, stream: id, why: fmt.Sprintf(format, args...)}
}

// An h2Frame is one frame. Its payload is the reader's until the next frame is read.
type h2Frame struct {
	kind    h2Kind
	flags   uint8
	stream  uint32
	payload []byte
}

func (f *h2Frame) has(flag uint8) bool { return f.flags&flag != 0 }

// An h2Reader reads frames of at most h2MaxFrame bytes.
type h2Reader struct {
	r       *bufio.Reader
	payload []byte // of frames that do not fit r's buffer
	used    int    // bytes in r's buffer that the frame read last takes
}

func newH2Reader(r io.Reader) *h2Reader { return &h2Reader{r: bufio.NewReader(r)} }

// ready reports whether the next frame has arrived whole.
func (r *h2Reader) ready() bool {
	have := r.r.Buffered() - r.used
	if have < h2HeaderSize {
		return false
	}
	b, _ := r.r.Peek(r.used + h2HeaderSize)
	return have >= h2HeaderSize+frameLength(b[r.used:])
}

func frameLength(b []byte) int { return int(b[0])<<16 | int(b[1])<<8 | int(b[2]) }

// read reads one frame. Its error is an *h2Error if the peer is at fault.
func (r *h2Reader) read(f *h2Frame) error {
	if _, err := r.r.Discard(r.used); err != nil {
		return err
	}
	r.used = 0
	b, err := r.r.Peek(h2HeaderSize)
	if err != nil {
		return err
	}
	n := frameLength(b)
	f.kind, f.flags, f.stream = h2Kind(b[3]), b[4], binary.BigEndian.Uint32(b[5:])&^(1<<31)
	if n > h2MaxFrame {
		return connError(h2FrameSizeError, "frame of %d bytes", n)
	}
	if h2HeaderSize+n <= r.r.Size() {
		b, err := r.r.Peek(h2HeaderSize + n)
		if err != nil {
			return err
		}
		f.payload, r.used = b[h2HeaderSize:], h2HeaderSize+n
		return nil
	}
	if _, err := r.r.Discard(h2HeaderSize); err != nil {
		return err
	}
	if r.payload == nil {
		r.payload = make([]byte, h2MaxFrame)
	}
	f.payload = r.payload[:n]
	_, err = io.ReadFull(r.r, f.payload)
	return err
}

// unpad takes the padding of DATA and HEADERS away (RFC 9113 §6.1).
func (f *h2Frame) unpad() error {
	if !f.has(h2Padded) {
		return nil
	}
	if len(f.payload) == 0 || int(f.payload[0]) >= len(f.payload) {
		return connError(h2ProtocolError, "padding longer than its frame")
	}
	f.payload = f.payload[1 : len(f.payload)-int(f.payload[0])]
	return nil
}

// appendFrame appends the header of a frame whose payload has n bytes.
func appendFrame(b []byte, kind h2Kind, flags uint8, stream uint32, n int) []byte {
	b = append(b, byte(n>>16), byte(n>>8), byte(n), byte(kind), flags)
	return binary.BigEndian.AppendUint32(b, stream)
}

// appendWord appends a frame whose payload is one number, as of RST_STREAM and WINDOW_UPDATE.
func appendWord(b []byte, kind h2Kind, stream, word uint32) []byte {
	return binary.BigEndian.AppendUint32(appendFrame(b, kind, 0, stream, 4), word)
}
