package upstream

import (
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"torno.internal/protocol"
)

// ReadResponse reads one head into resp, whose Fields' memory is reused: interim ones in their order,
// then the final one. Connection-specific fields, those that Connection nominates, Alt-Svc and torno-*
// are left out. Errors are *protocol.RefusedError.
func (x *Exchange) ReadResponse(resp *protocol.Response) error {
	if x.final {
		return errors.New("upstream: ReadResponse after the final response")
	}
	x.head.Fields = resp.Fields[:0]
	if err := x.conn.r.ReadResponse(&x.head, x.method); err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("connection closed before the response")
		}
		return refuse(err)
	}
	resp.Status, resp.Fields = x.head.Status, x.head.Fields
	if resp.Status == 101 {
		if err := x.switched(resp); err != nil {
			return err
		}
	}
	if !resp.Interim() {
		x.final = true
		x.conn.enterContent()
	}
	x.filter(resp)
	return nil
}

// filter leaves out what ends at this hop and what steers clients, and notes how long the other side
// keeps idle connections.
func (x *Exchange) filter(resp *protocol.Response) {
	named := nominated(resp.Fields)
	resp.Fields = resp.Fields.DelFunc(func(l protocol.Field) bool {
		if l.Name == "keep-alive" {
			x.keep = keepAliveTimeout(l.Value)
		}
		return endsHere(l.Name) || steers(l.Name) || slices.Contains(named, l.Name) ||
			l.Name == "content-length" && (resp.Status < 200 || resp.Status == 204)
	})
}

// keepAliveTimeout returns how long a connection may stay idle, from a Keep-Alive field such as
// "timeout=5, max=100": a second less than the other side says, which leaves no time for a request to
// cross with its close.
func keepAliveTimeout(value string) time.Duration {
	for param := range strings.SplitSeq(value, ",") {
		name, seconds, _ := strings.Cut(strings.Trim(param, " \t"), "=")
		if !strings.EqualFold(name, "timeout") {
			continue
		}
		if n, err := strconv.ParseUint(seconds, 10, 16); err == nil {
			return min(idleTimeout, time.Duration(n)*time.Second-time.Second)
		}
	}
	return idleTimeout
}

// Buffered returns how many bytes of the response have arrived and were not read: with none, Read would
// wait for the other side.
func (x *Exchange) Buffered() int { return x.conn.r.Buffered() }

// Read reads content, as the other side coded it, after the final head. It returns io.EOF only at the
// content's clean end; every other error matches io.ErrUnexpectedEOF, and the exchange must not be
// ended as if it were whole.
func (x *Exchange) Read(p []byte) (int, error) {
	if !x.final {
		return 0, errors.New("upstream: Read before the final response")
	}
	if x.received {
		return 0, io.EOF
	}
	n, err := x.conn.r.Read(p)
	switch {
	case errors.Is(err, io.EOF):
		x.received, x.trailer = true, x.conn.r.Trailer()
	case err != nil:
		err = cutOff("response content", err)
	}
	return n, err
}

// Trailer returns the response's trailer section, after Read has returned io.EOF, without the fields
// that may not stand there.
func (x *Exchange) Trailer() protocol.Fields {
	return x.trailer.DelFunc(func(l protocol.Field) bool { return forbiddenInTrailer(l.Name) })
}
