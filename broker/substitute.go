package broker

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"torno.internal/broker/internal/decode"
	"torno.internal/protocol"
	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// maxBuffered is how long content is that is read whole before it goes upstream, so that its new length can be
// said: some servers want to know it, and answer 411 where they are not told. Longer content is replaced as it
// flows, without a length.
const maxBuffered = 1 << 20 // bytes

// descriptions are fields of a request that describe its content as it was.
var descriptions = map[string]bool{
	"content-encoding": true, "content-md5": true, "digest": true, "content-digest": true, "repr-digest": true,
}

// substitute has the content's placeholders replaced, where the secret was set for that and the content is what
// it was set for. done wipes what was made for it.
func (x *exchange) substitute(b *body) (done func(), err error) {
	done = func() {}
	if x.use == nil || x.bare || b.whole && len(b.first) == 0 || x.req.Fields.Count("content-type") != 1 {
		return done, nil
	}
	place, ok := x.use.Replaces(x.req.Fields.Get("content-type"))
	if !ok {
		return done, nil
	}
	coded, err := decode.Coding(x.req.Fields)
	if err != nil || coded != "" && coded != "gzip" {
		return done, nil // it passes as it is: what it holds, if anything, is inert
	}
	return x.replace(b, place, coded)
}

func (x *exchange) replace(b *body, place control.Place, coded string) (done func(), err error) {
	src := io.Reader(bytes.NewReader(b.first))
	if !b.whole {
		src = io.MultiReader(src, x.upward(x.st.r))
	}
	declared := b.length
	if declared >= 0 {
		src = &exactly{r: src, left: declared}
	}
	var unpack *decode.Reader
	if coded != "" {
		if x.s.decoding.Add(1) > maxDecoding {
			x.s.decoding.Add(-1)
			return func() {}, protocol.Refuse(protocol.ReasonStreamsExhausted, errors.New("too much coded content at once"))
		}
		unpack = decode.NewReader(src, coded)
		src = unpack
	}
	r := x.use.Replacer(place, x.counted(src, nil))
	x.req.Fields = x.req.Fields.DelFunc(func(f protocol.Field) bool { return descriptions[protocol.FoldName(f.Name)] })
	*b = body{length: -1, from: r, expect: b.expect, whole: false}
	done = func() {
		r.Close()
		secret.Wipe(b.first)
		if unpack != nil {
			_ = unpack.Close()
			x.s.decoding.Add(-1)
		}
	}
	if declared < 0 || declared > maxBuffered {
		return done, nil
	}
	return done, x.buffer(b)
}

// buffer reads the beginning of replaced content, and all of it if it isn't too long.
func (x *exchange) buffer(b *body) error {
	if b.expect { // it comes when it is asked for, and the upstream is asked with all of it
		x.interims.expect = true
		if err := x.interim(&protocol.Response{Status: 100}); err != nil {
			return err
		}
		b.expect = false
		x.req.Fields = x.req.Fields.DelFunc(func(f protocol.Field) bool { return f.Name == "expect" })
	}
	b.first = make([]byte, 0, maxBuffered)
	for len(b.first) < cap(b.first) {
		n, err := b.from.Read(b.first[len(b.first):cap(b.first)])
		b.first = b.first[:len(b.first)+n]
		if errors.Is(err, io.EOF) {
			b.length, b.whole = int64(len(b.first)), true
			return nil
		}
		if err != nil {
			return protocol.Refuse(protocol.ReasonBadRequest, err)
		}
	}
	return nil
}

// exactly reads as many bytes as were declared: where the content's end comes early or late the request is not
// whole, whatever its new length.
type exactly struct {
	r    io.Reader
	left int64
}

func (e *exactly) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	e.left -= int64(n)
	switch {
	case e.left < 0:
		return 0, fmt.Errorf("content is %d bytes longer than was said", -e.left)
	case errors.Is(err, io.EOF) && e.left > 0:
		return n, fmt.Errorf("content is %d bytes shorter than was said", e.left)
	}
	return n, err
}

// copyReplaced copies content that holds a secret. Unlike bhttp.Copy it leaves none of it in shared memory.
func copyReplaced(w io.Writer, r io.Reader, flush func() error) (int64, error) {
	buf := make([]byte, 32<<10)
	defer secret.Wipe(buf)
	var total int64
	for {
		n, err := r.Read(buf)
		total += int64(n)
		if n > 0 {
			if _, werr := w.Write(buf[:n]); werr != nil {
				return total, werr
			}
		}
		if errors.Is(err, io.EOF) {
			return total, nil
		}
		if err == nil {
			err = flush()
		}
		if err != nil {
			return total, err
		}
	}
}

// counted returns r, which follows first, with the placeholders in both counted where the workload holds any.
// Where none is replaced they are text, and pass.
func (x *exchange) counted(r io.Reader, first []byte) io.Reader {
	if !x.s.secrets().HasPlaceholders() {
		return r
	}
	c := &markCounter{r: r, count: &x.outcome.Placeholders}
	c.take(first)
	return c
}
