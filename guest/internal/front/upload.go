package front

import (
	"errors"
	"io"
	"time"

	"torno.internal/guest/internal/relay"
	"torno.internal/protocol"
	"torno.internal/protocol/bhttp"
	"torno.internal/protocol/http1"
)

// An upload carries a request's content on while its response is read. A nil upload has ended well.
type upload struct {
	done chan struct{}
	err  error // once done is closed
}

// startUpload has carry carry the content on.
func startUpload(carry func() error) *upload {
	up := &upload{done: make(chan struct{})}
	go func() {
		defer close(up.done)
		up.err = carry()
	}()
	return up
}

// upload carries the content and the trailers. When the client fails the stream is cut, or the broker
// would wait for the rest; when the broker fails it is not, since an answer may have come before.
func (c *conn) upload(s *relay.Stream) error {
	from := &source{Reader: c.r}
	if _, err := bhttp.Copy(s, from, func(int64) error { return s.Flush() }); err != nil {
		if from.failed {
			s.Cut()
		}
		return err
	}
	return closeUpload(s, c.r.Trailer())
}

// closeUpload ends a request. Trailers that the wire does not carry abort it.
func closeUpload(s *relay.Stream, trailer protocol.Fields) error {
	err := blame(s.CloseWrite(trailer.DelFunc(isOwn)))
	if _, refused := err.(*protocol.RefusedError); refused {
		s.Cut()
	}
	return err
}

// refusedUpload answers a request that got no response: err is why, but what was wrong with its content
// says more.
func (c *conn) refusedUpload(head *http1.RequestHead, uploadErr, err error) bool {
	var malformed *http1.Error
	var refused *protocol.RefusedError
	switch {
	case errors.As(uploadErr, &malformed):
		c.refuseMalformed(malformed)
		return false
	case errors.As(uploadErr, &refused):
		err = refused
	}
	return c.refused(head, err, false)
}

// A source remembers whether reading it failed.
type source struct {
	io.Reader
	failed bool
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	s.failed = err != nil && !errors.Is(err, io.EOF)
	return n, err
}

// ended reports whether the upload has ended.
func (u *upload) ended() bool {
	if u == nil {
		return true
	}
	select {
	case <-u.done:
		return true
	default:
		return false
	}
}

// uploadGrace is how long a request may go on once its response has ended. Most have ended by then and
// only need to say so; the rest of any other is of no use to anybody.
const uploadGrace = 250 * time.Millisecond

// wait waits for the upload's end, at most for d.
func (u *upload) wait(d time.Duration) bool {
	if u.ended() {
		return true
	}
	grace := time.NewTimer(d)
	defer grace.Stop()
	select {
	case <-u.done:
		return true
	case <-grace.C:
		return false
	}
}

// joinUpload ends an upload that is of no more use.
func (c *conn) joinUpload(s *relay.Stream, up *upload) {
	if up.ended() {
		return
	}
	s.Cut()
	_ = c.readUntil(time.Unix(1, 0))
	<-up.done
	_ = c.readUntil(time.Time{})
}

// finish joins the upload and gives the stream back if both messages have ended, or aborts it.
func (c *conn) finish(s *relay.Stream, up *upload, keep bool, err error) (bool, error) {
	inTime := up.ended() // else the broker, too, had answered before the end, and may be about to close the stream
	if err == nil && up.wait(uploadGrace) && (up == nil || up.err == nil) {
		c.release(s, inTime)
		return keep, nil
	}
	c.joinUpload(s, up)
	c.release(s, false)
	if errors.Is(err, errAnswered) {
		return false, nil
	}
	if up != nil && err != nil {
		err = errors.Join(err, up.err)
	}
	return false, err
}
