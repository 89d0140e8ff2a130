package front

import (
	"encoding/binary"
	"time"
)

// Settings (RFC 9113 §6.5.2).
const (
	settingTableSize     = 0x1
	settingPush          = 0x2
	settingMaxStreams    = 0x3
	settingInitialWindow = 0x4
	settingMaxFrame      = 0x5
	settingMaxHeaderList = 0x6
)

func appendSetting(b []byte, id uint16, value uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(b, id), value)
}

// onSettings takes the client's settings over.
func (h *h2Conn) onSettings(f *h2Frame) error {
	switch {
	case f.stream != 0:
		return connError(h2ProtocolError, "SETTINGS on stream %d", f.stream)
	case f.has(h2Ack) && len(f.payload) > 0, len(f.payload)%h2SettingEntry != 0:
		return connError(h2FrameSizeError, "SETTINGS of %d bytes", len(f.payload))
	case f.has(h2Ack):
		return nil
	}
	for p := f.payload; len(p) > 0; p = p[h2SettingEntry:] {
		if err := h.setting(binary.BigEndian.Uint16(p), binary.BigEndian.Uint32(p[2:])); err != nil {
			return err
		}
	}
	return h.answer(func(b []byte) []byte { return appendFrame(b, h2Settings, h2Ack, 0, 0) })
}

func (h *h2Conn) setting(id uint16, value uint32) error {
	switch id {
	case settingTableSize:
		h.w.limitTable(value)
	case settingPush:
		if value > 1 {
			return connError(h2ProtocolError, "ENABLE_PUSH %d", value)
		}
	case settingMaxFrame:
		if value < h2MaxFrame || value >= 1<<24 {
			return connError(h2ProtocolError, "MAX_FRAME_SIZE %d", value)
		}
	case settingInitialWindow:
		if value > h2MaxWindow {
			return connError(h2FlowControlError, "INITIAL_WINDOW_SIZE %d", value)
		}
		return h.setInitial(int64(value))
	}
	return nil
}

// setInitial changes the window of every stream by as much as that of new ones (RFC 9113 §6.9.2).
func (h *h2Conn) setInitial(n int64) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	by := n - h.initial
	h.initial = n
	for _, st := range h.streams {
		if st.send += by; st.send > h2MaxWindow {
			return connError(h2FlowControlError, "window of stream %d", st.id)
		}
	}
	h.room.Broadcast()
	return nil
}

func (h *h2Conn) onPing(f *h2Frame) error {
	switch {
	case f.stream != 0:
		return connError(h2ProtocolError, "PING on stream %d", f.stream)
	case len(f.payload) != 8:
		return connError(h2FrameSizeError, "PING of %d bytes", len(f.payload))
	case f.has(h2Ack):
		return nil
	}
	return h.answer(func(b []byte) []byte { return append(appendFrame(b, h2Ping, h2Ack, 0, 8), f.payload...) })
}

// onPriority judges PRIORITY frames, which do nothing any more (RFC 9113 §5.3.2).
func (h *h2Conn) onPriority(f *h2Frame) error {
	stream := f.stream
	if stream > h.lastID {
		stream = 0 // one that is not open yet can't be reset
	}
	switch {
	case f.stream == 0:
		return connError(h2ProtocolError, "PRIORITY of the connection")
	case len(f.payload) != h2PriorityFieldsSize:
		return streamError(stream, h2FrameSizeError, "PRIORITY of %d bytes", len(f.payload))
	case dependency(f.payload) == f.stream:
		return streamError(stream, h2ProtocolError, "PRIORITY of a stream that depends on itself")
	}
	return nil
}

func dependency(b []byte) uint32 { return binary.BigEndian.Uint32(b) &^ (1 << 31) }

// onWindowUpdate lets more content out.
func (h *h2Conn) onWindowUpdate(f *h2Frame) error {
	if len(f.payload) != 4 {
		return connError(h2FrameSizeError, "WINDOW_UPDATE of %d bytes", len(f.payload))
	}
	by := int64(binary.BigEndian.Uint32(f.payload) &^ (1 << 31))
	h.mu.Lock()
	defer h.mu.Unlock()
	if f.stream == 0 {
		if h.send += by; by == 0 || h.send > h2MaxWindow {
			return connError(codeOfIncrement(by), "WINDOW_UPDATE by %d", by)
		}
		h.room.Broadcast()
		return nil
	}
	st := h.streams[f.stream]
	if st == nil {
		return h.idle(f)
	}
	if st.send += by; by == 0 || st.send > h2MaxWindow {
		return streamError(f.stream, codeOfIncrement(by), "WINDOW_UPDATE by %d", by)
	}
	h.room.Broadcast()
	return nil
}

func codeOfIncrement(by int64) h2Code {
	if by == 0 {
		return h2ProtocolError
	}
	return h2FlowControlError
}

// idle refuses a frame on a stream that was never opened. Streams that have ended are no error.
func (h *h2Conn) idle(f *h2Frame) error {
	if f.stream > h.lastID || f.stream%2 == 0 {
		return connError(h2ProtocolError, "frame %d on idle stream %d", f.kind, f.stream)
	}
	return nil
}

// onReset ends a stream that the client is no longer interested in.
func (h *h2Conn) onReset(f *h2Frame) error {
	switch {
	case f.stream == 0:
		return connError(h2ProtocolError, "RST_STREAM of the connection")
	case len(f.payload) != 4:
		return connError(h2FrameSizeError, "RST_STREAM of %d bytes", len(f.payload))
	}
	h.mu.Lock()
	st := h.streams[f.stream]
	h.mu.Unlock()
	if st == nil {
		return h.idle(f)
	}
	st.fail(errClientReset)
	h.leave(st, false)
	return h.spend()
}

// spend counts a stream that the client wastes, by a reset or by a mistake that makes us reset it.
func (h *h2Conn) spend() error {
	now := time.Now()
	h.resets = min(h2Resets, h.resets+now.Sub(h.resetsAt).Seconds()*h2ResetRate) - 1
	if h.resetsAt = now; h.resets < 0 {
		return connError(h2EnhanceYourCalm, "too many streams reset")
	}
	return nil
}
