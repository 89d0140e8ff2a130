package upstream

import (
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"torno.internal/protocol"
)

// Limits on one HTTP/2 connection.
const (
	h2Window           = 512 << 10 // bytes of content that the other side may send before somebody reads them
	h2Crowd            = 64        // connections of a session; further ones have h2DefaultWindow, so that all of them fit
	h2DefaultWindow    = 65535     // what both sides begin with (RFC 9113 §6.9.2)
	h2MaxWindow        = 1<<31 - 1
	h2FrameSize        = 16 << 10 // bytes of payload: what everybody must accept, and we do
	h2FrameHeader      = 9        // bytes before the payload
	h2MaxContinuations = 64       // frames behind one HEADERS; MaxHead fits eight
	h2MaxIdleFrames    = 1000     // a minute, of those that bring neither head nor content
	h2MaxPending       = 64 << 10 // bytes of answers that wait for the writer
	h2MaxStream        = 1<<31 - 1
)

// An h2conn is the HTTP/2 (RFC 9113) state of one connection. It carries one stream at a time, 1, 3, 5
// and so on, and speaks for it as an http1.Reader and an http1.Writer would: one goroutine writes a
// request while another reads the response.
//
// A goroutine of its own, run, reads all frames, so that the connection answers and drains whatever the
// exchange waits for. What it has read and nobody took is bounded by the window.
type h2conn struct {
	conn *conn

	// run's
	fr     *http2.Framer
	dec    *hpack.Decoder
	block  h2Block
	spent  int       // frames since spentAt that brought nothing
	since  time.Time // when spent was 0
	update int64     // WINDOW_UPDATE frames seen

	h2Request // the writer's

	wmu sync.Mutex // held while frames leave, one sequence at a time

	mu       sync.Mutex
	readable sync.Cond // for who reads the response
	writable sync.Cond // for who writes the request
	h2Stream           // the one that is open, or was last
	ctl      []byte    // frames that leave when nobody else writes
	sent     int64     // bytes of content sent, over all streams

	// set by the other side
	settled    bool // its first SETTINGS came
	maxStreams uint32
	window     int32 // that a stream of ours begins with
	goneAway   bool  // no further stream

	// windows
	sendConn int64 // what we may still send
	recvConn int64 // what the other side may still send
	held     int64 // what it may send before somebody reads it
	owedConn int64 // what it will be granted when it is worth a frame

	readErr, writeErr error // final
}

// An h2Stream is the state of one stream. The connection's mu guards it.
type h2Stream struct {
	id         uint32 // 0 before the first
	method     string
	sendStream int64 // as sendConn; negative after the other side shrank it (RFC 9113 §6.9.2)
	recvStream int64
	owedStream int64
	done       bool // the request has ended

	heads    []h2Head // not yet taken
	spare    protocol.Fields
	interims int
	final    bool  // the final head came
	ended    bool  // the response has ended
	left     int64 // bytes of content to come, -1 if unknown
	trailer  protocol.Fields
	content  h2Buffer
}

// An h2Head is one response head.
type h2Head struct {
	status int
	fields protocol.Fields
	end    bool // nothing follows
}

// newH2 prepares HTTP/2 on c, with windows of held bytes. Nothing leaves before run.
func newH2(c *conn, held int64) *h2conn {
	h := &h2conn{
		conn:       c,
		maxStreams: h2MaxStream,
		window:     h2DefaultWindow,
		sendConn:   h2DefaultWindow,
		recvConn:   held,
		held:       held,
	}
	h.readable.L, h.writable.L = &h.mu, &h.mu
	h.h2Request.init()
	h.fr = http2.NewFramer(nil, h2Source{h})
	h.fr.SetMaxReadFrameSize(h2FrameSize)
	h.fr.SetReuseFrames()
	h.dec = hpack.NewDecoder(4096, h.emit)
	h.dec.SetMaxStringLength(protocol.MaxFieldValue)
	h.ended, h.done = true, true
	h.ctl = append(h.ctl, http2.ClientPreface...)
	h.ctl = appendSettings(h.ctl,
		http2.Setting{ID: http2.SettingEnablePush, Val: 0},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(held)},
		http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: protocol.MaxHead})
	if held > h2DefaultWindow {
		h.ctl = appendWindowUpdate(h.ctl, 0, held-h2DefaultWindow)
	}
	return h
}

// run reads until the connection ends. Its owner is the pool. Where it panics, which is a mistake of ours or of a
// library's that an upstream has found, the connection ends and not the broker.
func (h *h2conn) run() {
	defer func() {
		if v := recover(); v != nil {
			h.fail(fmt.Errorf("http/2: %T while reading frames\n%s", v, debug.Stack()))
			h.conn.abort()
		}
	}()
	h.sendControl()
	err := h.readFrames()
	var broken *h2Error
	if errors.As(err, &broken) {
		h.goAway(broken.code) // first: who is told of an error closes the connection
	}
	h.fail(err)
	h.conn.abort()
}

// An h2Error means that the other side broke the protocol. The connection ends with the code.
type h2Error struct {
	code   http2.ErrCode
	detail string
}

func (e *h2Error) Error() string { return "http/2: " + e.detail }

func h2Bad(format string, args ...any) error {
	return &h2Error{http2.ErrCodeProtocol, fmt.Sprintf(format, args...)}
}

// fail ends the connection for whoever waits. An end of the connection is never a clean end of content.
func (h *h2conn) fail(err error) {
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("connection closed: %w", io.ErrUnexpectedEOF)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.failRead(err)
	h.failWrite(err)
}

// failRead lets who reads have what came before, then err; mu is held.
func (h *h2conn) failRead(err error) {
	if h.readErr == nil {
		h.readErr = err
	}
	h.readable.Broadcast()
}

// failWrite ends writing; mu is held.
func (h *h2conn) failWrite(err error) {
	if h.writeErr == nil {
		h.writeErr = err
	}
	h.writable.Broadcast()
}

var errGoneAway = errors.New("http/2: the other side takes no further request on this connection")

// usable returns nil if another stream may be opened.
func (h *h2conn) usable() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.readErr != nil:
		return h.readErr
	case h.writeErr != nil:
		return h.writeErr
	case h.goneAway, h.maxStreams == 0, h.next > h2MaxStream:
		return errGoneAway
	case !h.ended || !h.done || len(h.heads) > 0 || h.content.len() > 0:
		return errUnasked
	}
	return nil
}

// An h2Source is what the Framer reads: the connection, whose deadline does not count against the other
// side while our own reader is the one who keeps still.
type h2Source struct{ h *h2conn }

func (s h2Source) Read(p []byte) (int, error) {
	for {
		n, err := s.h.conn.Read(p)
		if n > 0 || !isTimeout(err) || !s.h.unread() {
			return n, err
		}
		if err := s.h.conn.postpone(); err != nil {
			return 0, err
		}
	}
}

// unread reports whether some of the response waits to be read.
func (h *h2conn) unread() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.heads) > 0 || h.content.len() > 0
}
