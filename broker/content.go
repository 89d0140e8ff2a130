package broker

import (
	"errors"
	"io"
	"net"
	"strings"

	"torno.internal/broker/internal/sign"
	"torno.internal/broker/internal/upstream"
	"torno.internal/protocol"
	"torno.internal/protocol/bhttp"
	"torno.internal/protocol/http1"
)

// A body is the request's content as far as it is known when the head goes upstream.
type body struct {
	length int64  // bytes; -1 unknown
	first  []byte // what was read already
	whole  bool   // first is all of it
	expect bool   // the client waits for 100 (Continue)

	signed func(io.Writer) io.WriteCloser // what it passes through on its way; nil: nothing
	from   io.Reader                      // what follows first, with placeholders replaced; nil: the stream
}

// content learns how the request's content is framed. When its beginning has arrived with the head it
// is read at once, so that a request without content costs no goroutine.
func (x *exchange) content() (body, error) {
	b := body{length: -1, expect: expectsContinue(x.req.Fields)}
	if n, ok, err := http1.ContentLength(x.req.Fields); err != nil {
		return b, protocol.Refuse(protocol.ReasonBadRequest, err)
	} else if ok {
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
	if err := x.within.Up(len(b.first)); err != nil {
		return b, x.exceeded(err)
	}
	if b.whole && b.length < 0 {
		b.length = int64(len(b.first))
	}
	return b, nil
}

// expectsContinue reports whether the client waits for 100 (Continue) before it sends content.
func expectsContinue(f protocol.Fields) bool {
	return strings.EqualFold(f.Get("expect"), "100-continue")
}

// upload carries the request's content and trailers upstream. Where the guest does not end them as it
// should, the upstream must not wait for the rest; where the upstream takes no more, its response is still
// to be read.
func (x *exchange) upload(up *upstream.Exchange, b body) error {
	from := &guestContent{r: b.from}
	if b.from == nil {
		from.r = x.counted(x.upward(x.st.r), b.first)
	}
	err := x.send(up, b, from)
	if from.err != nil || errors.Is(err, http1.ErrShort) || errors.Is(err, http1.ErrLong) || errors.Is(err, sign.ErrContent) {
		x.spoil(err, from.err)
		up.Abort()
	}
	return err
}

// spoil keeps why the request's content can't be carried to its end, which is why its connection is cut: whoever waits for the
// response knows only that. read is how reading the content failed, if it did.
func (x *exchange) spoil(err, read error) {
	reason := protocol.ReasonBadRequest
	var refused *protocol.RefusedError
	switch {
	case errors.Is(err, sign.ErrContent):
		reason = protocol.ReasonUnsignable
	case errors.As(read, &refused):
		reason = refused.Reason
	case errors.Is(read, net.ErrClosed): // we closed it, for what went wrong elsewhere
		return
	}
	x.spoiled.Store(uint32(reason))
}

func (x *exchange) send(up *upstream.Exchange, b body, from *guestContent) error {
	x.outcome.BytesUp += int64(len(b.first))
	to, end := io.Writer(up), func() error { return nil }
	if b.signed != nil {
		s := b.signed(up)
		to, end = s, s.Close
	}
	if len(b.first) > 0 {
		if _, err := to.Write(b.first); err != nil {
			return err
		}
	}
	if !b.whole {
		if err := up.Flush(); err != nil {
			return err
		}
		n, err := x.copy(to, b, from, up.Flush)
		x.outcome.BytesUp += n
		if err != nil {
			return err
		}
	}
	var trailer protocol.Fields
	if !x.read {
		if from.err = x.st.r.ReadTrailer(&trailer); from.err != nil {
			return from.err
		}
		x.read, x.trailed = true, len(trailer) > 0
	}
	if err := end(); err != nil {
		return err
	}
	if x.use != nil {
		trailer = x.use.StripFields(trailer)
	}
	if x.signing.proof != nil {
		trailer = nil // no signature covers it
	}
	if b.signed == nil && x.outcome.BytesUp < b.length { // CloseWrite cuts the connection, and who reads from it is told why
		x.spoil(http1.ErrShort, nil)
	}
	return up.CloseWrite(trailer)
}

// copy carries what follows the content's beginning.
func (x *exchange) copy(to io.Writer, b body, from *guestContent, flush func() error) (int64, error) {
	if b.from != nil {
		return copyReplaced(to, from, flush)
	}
	return bhttp.Copy(to, from, func(int64) error { return flush() })
}

// A guestContent is a request's content; err is how reading it failed, if it did.
type guestContent struct {
	r   io.Reader
	err error
}

func (g *guestContent) Read(p []byte) (int, error) {
	n, err := g.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		g.err = err
	}
	return n, err
}
