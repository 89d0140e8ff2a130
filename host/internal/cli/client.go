package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"

	"torno.internal/protocol/control"
	"torno.internal/protocol/transport"
)

// maxAnswer bounds the broker's answer: bytes of JSON.
const maxAnswer = 16 << 20

// A client asks the broker over its control socket.
type client struct {
	http   *http.Client
	socket string
}

// connect returns a client of the broker that runs for this user.
func connect() (*client, error) {
	socket, err := controlSocket()
	if err != nil {
		return nil, err
	}
	return &client{socket: socket, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dialOwn(ctx, socket) },
	}}}, nil
}

// A squatterError means that somebody else listens where our broker should.
type squatterError struct {
	socket string
	uid    uint32
}

func (e *squatterError) Error() string {
	return fmt.Sprintf("user %d, not you, listens on %s", e.uid, e.socket)
}

// dialOwn connects to the socket if it is our own user's, or root's: a secret is sealed to the key that
// whoever listens there gives us.
func dialOwn(ctx context.Context, socket string) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	if uid, ok := transport.PeerUID(c); !ok || uid != 0 && int(uid) != os.Geteuid() {
		c.Close()
		return nil, &squatterError{socket, uid}
	}
	return c, nil
}

// do asks for method path, with in as JSON if it is not nil, and decodes the answer into out if that is
// not nil. An error answer comes back as *control.Error.
func (c *client) do(ctx context.Context, method, path string, in, out any) error {
	resp, err := c.open(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(out); err != nil {
		return fmt.Errorf("reading the broker's answer: %w", err)
	}
	return nil
}

// open asks and returns the answer with its body still to be read.
func (c *client) open(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://torno"+path, body)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		var squatter *squatterError
		if errors.As(err, &squatter) {
			return nil, &hintError{squatter, "set XDG_RUNTIME_DIR to a directory of your own"}
		}
		return nil, &hintError{fmt.Errorf("no broker answers on %s: %w", c.socket, rootCause(err)), "start one: torno serve"}
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	var e control.Error
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&e); err != nil || e.Message == "" {
		return nil, fmt.Errorf("the broker answers %s", resp.Status)
	}
	return nil, &e
}

func rootCause(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

// errNoBroker means that nobody answers on the control socket.
var errNoBroker = errors.New("no broker answers")

// health asks who answers. The broker must be the one that keeps our state: with one socket and two state
// directories a secret would go where nobody looks for it. The error is errNoBroker if nobody answers.
func (c *client) health(ctx context.Context) (control.Health, error) {
	var h control.Health
	err := c.do(ctx, "GET", control.PathHealth, nil, &h)
	var squatter *squatterError
	var refused *control.Error
	switch {
	case ctx.Err() != nil:
		return h, ctx.Err()
	case errors.As(err, &squatter), errors.As(err, &refused):
		return h, err
	case err != nil:
		return h, errNoBroker
	}
	state, err := stateDir()
	if err == nil && h.StateDir != state {
		return h, &hintError{
			fmt.Errorf("the broker that answers on %s keeps its state in %s, not in %s", c.socket, h.StateDir, state),
			"set XDG_RUNTIME_DIR too, for a broker of its own, or unset TORNO_STATE",
		}
	}
	return h, err
}
