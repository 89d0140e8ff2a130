// Package signing offers the workload proofs for requests that it sends by a way of its own: POST /v1/sign of HTTP/1.1 on a
// Unix socket. What is asked and answered is the broker's to judge and goes by as it is.
package signing

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"strconv"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/http1"
)

// MaxClients is how many clients are served at once.
const MaxClients = 4

// idleTimeout is how long a client may say nothing.
const idleTimeout = time.Minute

// An Asker asks the broker with a body of JSON. Its errors that say a reason are *protocol.RefusedErrors.
type Asker func(ctx context.Context, body []byte) (answer []byte, err error)

// Carry serves one client until it, or ctx, ends. The client is closed then.
func Carry(ctx context.Context, client net.Conn, ask Asker) error {
	defer client.Close()
	defer context.AfterFunc(ctx, func() { client.Close() })()
	c := &conn{r: http1.NewReader(client), w: http1.NewWriter(client), ask: ask}
	for {
		_ = client.SetDeadline(time.Now().Add(idleTimeout))
		if err := c.r.ReadRequest(&c.head); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return errors.Join(err, c.complain(client, err))
		}
		body, err := c.body()
		if err != nil {
			return errors.Join(err, c.complain(client, err))
		}
		_ = client.SetDeadline(time.Time{}) // a person may have to decide
		keep, err := c.answer(ctx, body)
		if err != nil || !keep {
			return err
		}
	}
}

// A conn is one client's connection.
type conn struct {
	r    *http1.Reader
	w    *http1.Writer
	head http1.RequestHead
	ask  Asker
}

var errTooLarge = &http1.Error{Status: 413, Detail: "more than " + strconv.Itoa(protocol.MaxChannelBody) + " bytes"}

// body reads the content of the request.
func (c *conn) body() ([]byte, error) {
	if c.head.ExpectContinue {
		if err := errors.Join(c.w.WriteResponse(100, nil, http1.NoContent, false, false), c.w.Flush()); err != nil {
			return nil, err
		}
	}
	body, err := io.ReadAll(io.LimitReader(c.r, protocol.MaxChannelBody+1))
	if err == nil && len(body) > protocol.MaxChannelBody {
		err = errTooLarge
	}
	return body, err
}

// answer asks the broker and answers with what it says. It reports whether the client can ask again.
func (c *conn) answer(ctx context.Context, body []byte) (keep bool, err error) {
	if c.head.Method != "POST" || c.head.Path != protocol.PathSign {
		return c.head.KeepAlive, c.say(404, nil, "here is POST "+protocol.PathSign+" alone\n")
	}
	if !json.Valid(body) {
		return c.refuse(protocol.ReasonBadRequest)
	}
	answer, err := c.ask(ctx, body)
	var refused *protocol.RefusedError
	switch {
	case errors.As(err, &refused):
		return c.refuse(refused.Reason)
	case err != nil:
		_, werr := c.refuse(protocol.ReasonBrokerUnavailable)
		return false, errors.Join(err, werr)
	}
	return c.head.KeepAlive, c.say(200, protocol.Fields{{Name: "content-type", Value: "application/json"}}, string(answer)+"\n")
}

func (c *conn) refuse(reason protocol.Reason) (keep bool, err error) {
	resp, content := protocol.Refusal(reason)
	return c.head.KeepAlive, c.say(resp.Status, resp.Fields, string(content))
}

// complain answers a request that could not be read, and reads some of what the client still sends: else it would not see the
// answer.
func (c *conn) complain(client net.Conn, err error) error {
	var malformed *http1.Error
	if !errors.As(err, &malformed) {
		return nil
	}
	c.head.KeepAlive = false
	if err := c.say(malformed.Status, nil, malformed.Detail+"\n"); err != nil {
		return err
	}
	if half, ok := client.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	_ = client.SetReadDeadline(time.Now().Add(lingerTime))
	_, _ = io.CopyN(io.Discard, client, lingerBytes)
	return nil
}

// What a client that is not understood may still send before it is cut off.
const (
	lingerTime  = time.Second
	lingerBytes = 1 << 20
)

// say writes a whole response.
func (c *conn) say(status int, fields protocol.Fields, content string) error {
	length := int64(len(content))
	if c.head.Method == "HEAD" {
		length, content = http1.NoContent, ""
	}
	if err := c.w.WriteResponse(status, fields, length, false, !c.head.KeepAlive); err != nil {
		return err
	}
	if _, err := io.WriteString(c.w, content); err != nil {
		return err
	}
	return c.w.Close(nil)
}
