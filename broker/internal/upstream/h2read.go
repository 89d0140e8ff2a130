package upstream

import (
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/net/http2"
)

// readFrames handles frames until there is an error.
func (h *h2conn) readFrames() error {
	for {
		f, err := h.fr.ReadFrame()
		if err != nil {
			return h.readError(err)
		}
		if err := h.handle(f); err != nil {
			return err
		}
	}
}

// readError turns what the Framer says into an error of ours. All of them end the connection.
func (h *h2conn) readError(err error) error {
	var ce http2.ConnectionError
	var se http2.StreamError
	switch {
	case errors.As(err, &ce):
		return &h2Error{http2.ErrCode(ce), fmt.Sprintf("malformed frame: %v, %v", ce, h.fr.ErrorDetail())}
	case errors.As(err, &se):
		return &h2Error{se.Code, fmt.Sprintf("malformed frame: %v", se)}
	case errors.Is(err, http2.ErrFrameTooLarge):
		return &h2Error{http2.ErrCodeFrameSize, fmt.Sprintf("frame over %d bytes", h2FrameSize)}
	}
	return err
}

func (h *h2conn) handle(f http2.Frame) error {
	settings, ok := f.(*http2.SettingsFrame)
	if !h.settled && (!ok || settings.IsAck()) {
		return h2Bad("the first frame is no SETTINGS")
	}
	switch f := f.(type) {
	case *http2.DataFrame:
		return h.onData(f)
	case *http2.HeadersFrame:
		return h.onHeaders(f)
	case *http2.ContinuationFrame:
		return h.onContinuation(f)
	case *http2.PushPromiseFrame:
		return h2Bad("PUSH_PROMISE, which we refused")
	case *http2.WindowUpdateFrame:
		return h.onWindowUpdate(f)
	}
	if err := h.spend(); err != nil {
		return err
	}
	switch f := f.(type) {
	case *http2.SettingsFrame:
		return h.onSettings(f)
	case *http2.PingFrame:
		if !f.IsAck() {
			return h.answer(func(b []byte) []byte { return appendPingAck(b, f.Data) })
		}
	case *http2.GoAwayFrame:
		h.onGoAway(f)
	case *http2.RSTStreamFrame:
		return h.onReset(f)
	}
	return nil // PRIORITY, and what nobody knows
}

// spend counts a frame that brings neither head nor content. Some are fine, more keep us busy.
func (h *h2conn) spend() error {
	if now := time.Now(); now.Sub(h.since) > time.Minute {
		h.spent, h.since = 0, now
	}
	if h.spent++; h.spent > h2MaxIdleFrames {
		return &h2Error{http2.ErrCodeEnhanceYourCalm, fmt.Sprintf("%d frames without progress", h.spent)}
	}
	return nil
}

// answer queues frames that add appends, and sends them if nobody is writing.
func (h *h2conn) answer(add func([]byte) []byte) error {
	h.mu.Lock()
	if len(h.ctl) > h2MaxPending {
		h.mu.Unlock()
		return &h2Error{http2.ErrCodeEnhanceYourCalm, "answers are not read"}
	}
	h.ctl = add(h.ctl)
	h.mu.Unlock()
	h.sendControl()
	return nil
}

func (h *h2conn) onSettings(f *http2.SettingsFrame) error {
	if f.IsAck() {
		return nil
	}
	if err := f.ForeachSetting(h.set); err != nil {
		return err
	}
	h.settled = true
	return h.answer(appendSettingsAck)
}

// set applies one setting (RFC 9113 §6.5.2). Our encoder keeps no table and our frames are of the size
// that everybody accepts, so HEADER_TABLE_SIZE and MAX_FRAME_SIZE change nothing.
func (h *h2conn) set(s http2.Setting) error {
	if err := s.Valid(); err != nil {
		return &h2Error{settingCode(s.ID), fmt.Sprintf("setting %v", s)}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	switch s.ID {
	case http2.SettingEnablePush:
		if s.Val != 0 {
			return h2Bad("a server that asks for push")
		}
	case http2.SettingMaxConcurrentStreams:
		h.maxStreams = s.Val
	case http2.SettingInitialWindowSize:
		h.sendStream += int64(s.Val) - int64(h.window)
		h.window = int32(s.Val)
		if h.sendStream > h2MaxWindow {
			return &h2Error{http2.ErrCodeFlowControl, "window over 2^31-1"}
		}
		h.writable.Broadcast()
	}
	return nil
}

// settingCode returns what a setting with an impossible value is answered with.
func settingCode(id http2.SettingID) http2.ErrCode {
	if id == http2.SettingInitialWindowSize {
		return http2.ErrCodeFlowControl
	}
	return http2.ErrCodeProtocol
}

// onWindowUpdate gives room to write. A byte sent is worth at most one update of each window, plus what
// the other side may want to grant beforehand.
func (h *h2conn) onWindowUpdate(f *http2.WindowUpdateFrame) error {
	h.update++
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.update > h2MaxIdleFrames+2*h.sent {
		return &h2Error{http2.ErrCodeEnhanceYourCalm, fmt.Sprintf("%d window updates for %d bytes", h.update, h.sent)}
	}
	window := &h.sendConn
	if f.StreamID != 0 {
		if err := h.known(f.StreamID); err != nil {
			return err
		}
		if f.StreamID != h.id {
			return nil
		}
		window = &h.sendStream
	}
	if *window += int64(f.Increment); *window > h2MaxWindow {
		return &h2Error{http2.ErrCodeFlowControl, "window over 2^31-1"}
	}
	h.writable.Broadcast()
	return nil
}

// known checks that a stream is one of ours, open or closed; mu is held.
func (h *h2conn) known(id uint32) error {
	if id%2 == 0 || id > h.id {
		return h2Bad("frame on stream %d, which nobody opened", id)
	}
	return nil
}

// onGoAway lets the stream that is open finish if the other side saw it (RFC 9113 §6.8).
func (h *h2conn) onGoAway(f *http2.GoAwayFrame) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.goneAway = true
	if h.id > f.LastStreamID && !h.ended {
		err := fmt.Errorf("http/2: GOAWAY with %v before the request was processed", f.ErrCode)
		h.failRead(err)
		h.failWrite(err)
	}
}

// onReset ends the stream. After a complete response it only says that the rest of the request is not
// wanted (RFC 9113 §8.1).
func (h *h2conn) onReset(f *http2.RSTStreamFrame) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.known(f.StreamID); err != nil {
		return err
	}
	if f.StreamID != h.id || h.ended && h.done {
		return nil
	}
	err := fmt.Errorf("http/2: stream reset by the other side with %v: %w", f.ErrCode, io.ErrUnexpectedEOF)
	if !h.ended {
		h.failRead(err)
	}
	h.failWrite(err)
	return nil
}

// onData takes content in.
func (h *h2conn) onData(f *http2.DataFrame) error {
	data := f.Data()
	if len(data) > 0 {
		h.spent = 0
	} else if err := h.spend(); err != nil {
		return err
	}
	granted, err := h.take(f, data)
	if granted {
		h.sendControl()
	}
	return err
}

// take reports whether it granted some window, for the padding.
func (h *h2conn) take(f *http2.DataFrame, data []byte) (granted bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if f.StreamID != h.id || !h.final || h.ended {
		return false, h2Bad("DATA on stream %d, which expects none", f.StreamID)
	}
	n := int64(f.Length)
	if n > h.recvConn || n > h.recvStream {
		return false, &h2Error{http2.ErrCodeFlowControl, "more content than the window holds"}
	}
	h.recvConn -= n
	h.recvStream -= n
	if h.left >= 0 {
		if h.left -= int64(len(data)); h.left < 0 {
			return false, h2Bad("content is longer than announced")
		}
	}
	if h.readErr == nil {
		h.content.write(data)
	}
	if f.StreamEnded() {
		if err := h.endResponse(); err != nil {
			return false, err
		}
	}
	h.readable.Signal()
	return h.grant(n - int64(len(data))), nil
}

// endResponse ends the response; mu is held.
func (h *h2conn) endResponse() error {
	if h.left > 0 {
		return h2Bad("content is shorter than announced")
	}
	h.ended = true
	return nil
}

// grant gives n bytes of content back to the windows and reports whether an update waits in ctl; mu is
// held.
func (h *h2conn) grant(n int64) bool {
	granted := false
	h.owedConn += n
	h.owedStream += n
	if h.owedConn >= h.held/2 {
		h.ctl = appendWindowUpdate(h.ctl, 0, h.owedConn)
		h.recvConn += h.owedConn
		h.owedConn, granted = 0, true
	}
	if h.owedStream >= h.held/2 && !h.ended {
		h.ctl = appendWindowUpdate(h.ctl, h.id, h.owedStream)
		h.recvStream += h.owedStream
		h.owedStream, granted = 0, true
	}
	return granted
}
