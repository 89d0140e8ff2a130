package upstream

import (
	"io"

	"torno.internal/protocol"
	"torno.internal/protocol/http1"
)

// ReadResponse waits for the next head, as http1.Reader does.
func (h *h2conn) ReadResponse(head *http1.ResponseHead, _ string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(h.heads) == 0 && h.readErr == nil {
		h.readable.Wait()
	}
	if len(h.heads) == 0 {
		return h.readErr
	}
	next := h.heads[0]
	h.heads = append(h.heads[:0], h.heads[1:]...)
	*head = http1.ResponseHead{
		Status: next.status, Proto: "HTTP/2.0", Fields: append(head.Fields[:0], next.fields...),
		ContentLength: -1, KeepAlive: true,
	}
	if next.end {
		head.ContentLength = 0
	}
	clear(next.fields)
	h.spare = next.fields[:0]
	return nil
}

// Read reads content, as http1.Reader does, and gives the other side room for more.
func (h *h2conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, granted, err := h.readContent(p)
	if granted {
		h.sendControl()
	}
	return n, err
}

func (h *h2conn) readContent(p []byte) (n int, granted bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for h.content.len() == 0 && !h.ended && h.readErr == nil {
		h.readable.Wait()
	}
	switch {
	case h.content.len() > 0:
		n = h.content.read(p)
		return n, h.grant(int64(n)), nil
	case h.ended:
		h.content.trim()
		return 0, false, io.EOF
	}
	return 0, false, h.readErr
}

// Trailer returns the trailer section of the response that has ended.
func (h *h2conn) Trailer() protocol.Fields {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.trailer
}

// Buffered returns how many bytes of content have arrived and were not read.
func (h *h2conn) Buffered() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.content.len()
}
