package broker

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"torno.internal/broker/internal/upstream"
	"torno.internal/protocol"
	"torno.internal/protocol/bhttp"
)

// A body is the request's content as far as it is known when the head goes upstream.
type body struct {
	length int64  // bytes; -1 unknown
	first  []byte // what was read already
	whole  bool   // first is all of it
	expect bool   // the client waits for 100 (Continue)
}

// content learns how the request's content is framed. When its beginning has arrived with the head it
// is read at once, so that a request without content costs no goroutine.
func (x *exchange) content() (body, error) {
	b := body{length: -1, expect: strings.EqualFold(x.req.Fields.Get("expect"), "100-continue")}
	if v, ok := x.req.Fields.Lookup("content-length"); ok {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil || n < 0 || x.req.Fields.Count("content-length") > 1 {
			return b, protocol.Refuse(protocol.ReasonBadRequest, fmt.Errorf("content-length %q", v))
		}
		b.length = n
	}
	if x.st.r.Buffered() == 0 {
		return b, nil
	}
	b.first = make([]byte, 0, min(x.st.r.Buffered(), 32<<10))
	for len(b.first) < cap(b.first) && x.st.r.Buffered() > 0 {
		n, err := x.st.r.Read(b.first[len(b.first):cap(b.first)])
		b.first = b.first[:len(b.first)+n]
		if errors.Is(err, io.EOF) {
			b.whole = true
			break
		}
		if err != nil {
			return b, err
		}
	}
	if b.whole && b.length < 0 {
		b.length = int64(len(b.first))
	}
	return b, nil
}

// upload carries the request's content and trailers upstream.
func (x *exchange) upload(up *upstream.Exchange, b body) error {
	x.outcome.BytesUp += int64(len(b.first))
	if len(b.first) > 0 {
		if _, err := up.Write(b.first); err != nil {
			return err
		}
	}
	if !b.whole {
		if err := up.Flush(); err != nil {
			return err
		}
		n, err := bhttp.Copy(up, x.st.r, func(int64) error { return up.Flush() })
		x.outcome.BytesUp += n
		if err != nil {
			return err
		}
	}
	var trailer protocol.Fields
	if err := x.st.r.ReadTrailer(&trailer); err != nil {
		return err
	}
	return up.CloseWrite(trailer)
}
