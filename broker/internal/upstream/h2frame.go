package upstream

import (
	"encoding/binary"
	"time"

	"golang.org/x/net/http2"
)

// Frames are written here and not by http2.Framer, which would keep a copy of every header block, with
// the credentials in it, in a buffer that nobody can wipe.

// appendFrameHeader appends the nine bytes before a payload of n bytes (RFC 9113 §4.1).
func appendFrameHeader(b []byte, n int, t http2.FrameType, flags http2.Flags, stream uint32) []byte {
	b = append(b, byte(n>>16), byte(n>>8), byte(n), byte(t), byte(flags))
	return binary.BigEndian.AppendUint32(b, stream)
}

func appendSettings(b []byte, settings ...http2.Setting) []byte {
	b = appendFrameHeader(b, 6*len(settings), http2.FrameSettings, 0, 0)
	for _, s := range settings {
		b = binary.BigEndian.AppendUint16(b, uint16(s.ID))
		b = binary.BigEndian.AppendUint32(b, s.Val)
	}
	return b
}

func appendSettingsAck(b []byte) []byte {
	return appendFrameHeader(b, 0, http2.FrameSettings, http2.FlagSettingsAck, 0)
}

func appendPingAck(b []byte, data [8]byte) []byte {
	b = appendFrameHeader(b, len(data), http2.FramePing, http2.FlagPingAck, 0)
	return append(b, data[:]...)
}

func appendWindowUpdate(b []byte, stream uint32, n int64) []byte {
	b = appendFrameHeader(b, 4, http2.FrameWindowUpdate, 0, stream)
	return binary.BigEndian.AppendUint32(b, uint32(n))
}

// sendControl sends what waits in ctl, unless somebody is writing, who will. So who reads frames never
// waits for a writer that waits for the other side to read.
func (h *h2conn) sendControl() {
	for h.pending() && h.wmu.TryLock() {
		h.writeControl()
		h.wmu.Unlock()
	}
}

func (h *h2conn) pending() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.ctl) > 0 && h.writeErr == nil
}

// writeControl sends ctl; wmu is held.
func (h *h2conn) writeControl() {
	h.mu.Lock()
	b := h.ctl
	h.ctl = nil
	h.mu.Unlock()
	if len(b) == 0 {
		return
	}
	_, err := h.conn.Write(b)
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil {
		h.failWrite(err)
	} else if len(h.ctl) == 0 {
		h.ctl = b[:0]
	}
}

// write sends whole frames, after what waits in ctl.
func (h *h2conn) write(b []byte) error {
	defer h.sendControl()
	h.wmu.Lock()
	defer h.wmu.Unlock()
	h.writeControl()
	_, err := h.conn.Write(b)
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil {
		h.failWrite(err)
		return h.writeErr // the first: why the connection was closed
	}
	return nil
}

// goAwayTimeout is how long a connection that ends may take to say why.
const goAwayTimeout = time.Second

// goAway says why the connection ends, unless somebody is stuck in writing.
func (h *h2conn) goAway(code http2.ErrCode) {
	for tries := 0; !h.wmu.TryLock(); tries++ {
		if tries == 20 {
			return
		}
		time.Sleep(time.Millisecond)
	}
	defer h.wmu.Unlock()
	b := appendFrameHeader(nil, 8, http2.FrameGoAway, 0, 0)
	b = binary.BigEndian.AppendUint32(b, 0) // no stream of the other side's was processed
	b = binary.BigEndian.AppendUint32(b, uint32(code))
	if h.conn.rw.SetWriteDeadline(time.Now().Add(goAwayTimeout)) == nil {
		_, _ = h.conn.rw.Write(b)
	}
}
