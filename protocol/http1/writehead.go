package http1

import (
	"strconv"
	"strings"

	"torno.internal/protocol"
)

// WriteRequest begins a request; the head may still take AppendField. Target is in any form of RFC
// 9112 §3.2 and host is the Host field. The fields are lower case and hold none of
// protocol.ConnectionFields but upgrade, which Connection then nominates; content-length is passed
// over. The length is that of the content, Unknown for chunked; 0 writes Content-Length only for methods
// that anticipate content.
func (w *Writer) WriteRequest(method, target, host string, f protocol.Fields, length int64) error {
	if err := w.ready(writesHead); err != nil {
		return err
	}
	if err := checkRequestLine(method, target, host); err != nil {
		return err
	}
	mark := len(w.buf)
	w.appendString(method)
	w.appendString(" ")
	w.appendString(target)
	w.appendString(" HTTP/1.1\r\nhost: ")
	w.appendString(host)
	w.appendString("\r\n")
	if length == NoContent || length == 0 && !anticipatesContent(method) {
		length = unsaid
	}
	return w.fields(mark, f, length, length == Unknown, false)
}

// WriteResponse begins a response, interim or final; the head may still take AppendField. The length is
// that of the content: a number, Unknown, or NoContent, which interim responses and 204 always have.
// Unknown content is chunked or, for clients of HTTP/1.0, ended by closing the connection. The fields
// are as in WriteRequest. An interim response ends with Flush and is followed by another response.
func (w *Writer) WriteResponse(status int, f protocol.Fields, length int64, chunked, closing bool) error {
	if err := w.ready(writesHead); err != nil {
		return err
	}
	if status < 100 || status > 599 {
		return bad("status %d", status)
	}
	if status < 200 || status == 204 {
		length, chunked = unsaid, false
	}
	mark := len(w.buf)
	w.appendString("HTTP/1.1 ")
	w.buf = strconv.AppendInt(w.buf, int64(status), 10)
	w.appendString(" ")
	w.appendString(statusText[status])
	w.appendString("\r\n")
	if err := w.fields(mark, f, length, chunked && length == Unknown, closing); err != nil {
		return err
	}
	if status < 200 {
		w.endHead()
		w.state = writesHead
	}
	return nil
}

// unsaid is the length of a message whose head says nothing of a length because it has no content.
const unsaid = -3

// fields appends the field section but for its end, or cuts the buffer back to mark.
func (w *Writer) fields(mark int, f protocol.Fields, length int64, chunked, closing bool) error {
	if err := w.appendFields(f, length == NoContent); err != nil {
		w.buf = w.buf[:mark]
		return err
	}
	switch {
	case length >= 0:
		w.appendLength(length)
	case chunked:
		w.appendString("transfer-encoding: chunked\r\n")
	}
	if closing || length == Unknown && !chunked {
		w.appendString("connection: close\r\n")
	}
	w.left, w.chunked = length, chunked
	if length < Unknown {
		w.left = 0
	}
	w.state = writesFields
	return nil
}

// appendFields appends f, Content-Length only if keepLength.
func (w *Writer) appendFields(f protocol.Fields, keepLength bool) error {
	upgrade := false
	for i := range f {
		switch name := f[i].Name; {
		case name == "content-length":
		case name == "upgrade" && !upgrade && protocol.IsToken(f[i].Value):
			upgrade = true
			w.appendString("connection: upgrade\r\nupgrade: ")
			w.appendString(f[i].Value)
			w.appendString("\r\n")
		default:
			if err := w.appendField(f[i]); err != nil {
				return err
			}
		}
	}
	if !keepLength {
		return nil
	}
	n, ok, err := ContentLength(f)
	if ok {
		w.appendLength(n)
	}
	return err
}

func (w *Writer) appendLength(n int64) {
	w.appendString("content-length: ")
	w.buf = strconv.AppendInt(w.buf, n, 10)
	w.appendString("\r\n")
}

// anticipatesContent reports whether a server may want to be told that there is none (RFC 9110 §8.6).
func anticipatesContent(method string) bool {
	switch method {
	case "GET", "HEAD", "OPTIONS", "DELETE", "CONNECT":
		return false
	}
	return true
}

func checkRequestLine(method, target, host string) error {
	if !protocol.IsToken(method) || len(method) > protocol.MaxMethod {
		return bad("method %.32q", method)
	}
	if target == "" || len(target) > maxStartLine {
		return bad("request target of %d bytes", len(target))
	}
	for i := range len(target) {
		if c := target[i]; c <= ' ' || c >= 0x7f || c == '#' {
			return bad("byte %#02x in the request target", c)
		}
	}
	if method != "CONNECT" && !strings.HasPrefix(target, "/") && target != "*" && !strings.Contains(target, "://") {
		return bad("request target in no known form")
	}
	return checkAuthority("Host", host)
}
