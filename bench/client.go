package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// A target is what the load generator talks to.
type target struct {
	Name       string // of the subject
	Dial       string // host:port
	Credential bool   // the subject must have added it
}

// ioTimeout bounds everything that one exchange does.
const ioTimeout = 30 * time.Second

// A client is one HTTP/1.1 connection, as lean as it can be: one write per request, no allocation in an
// exchange. One goroutine at a time uses it.
type client struct {
	nc      *tls.Conn
	br      *bufio.Reader
	arrived int64 // when the last read came back, on monotonic's clock
	reads   int   // how many have

	chunked bool
	left    int64 // of the content, or of the chunk
	inChunk bool
}

// dial connects to t and makes a full handshake, never a resumption.
func dial(ctx context.Context, t target, config *tls.Config) (*client, error) {
	var d net.Dialer
	nc, err := d.DialContext(ctx, "tcp", t.Dial)
	if err != nil {
		return nil, err
	}
	c := &client{nc: tls.Client(nc, config)}
	_ = nc.SetDeadline(time.Now().Add(ioTimeout))
	if err := c.nc.HandshakeContext(ctx); err != nil {
		nc.Close()
		return nil, err
	}
	c.br = bufioSize(c, 4<<10)
	return c, nil
}

// noting reads from c's connection and notes when.
type noting struct{ c *client }

func (n noting) Read(p []byte) (int, error) {
	k, err := n.c.nc.Read(p)
	n.c.arrived = monotonic()
	n.c.reads++
	return k, err
}

func bufioSize(c *client, n int) *bufio.Reader { return bufio.NewReaderSize(noting{c}, n) }

// monotonic is CLOCK_MONOTONIC in nanoseconds, the same in every process.
func monotonic() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t)
	return t.Nano()
}

// request returns the bytes of a request without content, or with length bytes to follow.
func request(method, path string, length int64) []byte {
	return requestTo(upstreamHost, "", method, path, length)
}

// requestTo is request for a host, with more fields.
func requestTo(host, fields, method, path string, length int64) []byte {
	b := fmt.Appendf(nil, "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\nAccept: */*\r\n%s", method, path, host, fields)
	if method == "POST" {
		b = fmt.Appendf(b, "Content-Type: application/octet-stream\r\nContent-Length: %d\r\n", length)
	}
	return append(b, "\r\n"...)
}

// begin writes a request.
func (c *client) begin(request []byte) error {
	_ = c.nc.SetDeadline(time.Now().Add(ioTimeout))
	_, err := c.nc.Write(request)
	return err
}

// answer reads the head of a response, which must be a 200.
func (c *client) answer() error {
	c.chunked, c.left, c.inChunk = false, -1, false
	line, err := c.br.ReadSlice('\n')
	if err != nil {
		return err
	}
	if len(line) < 12 || string(line[9:12]) != "200" {
		return fmt.Errorf("status line %q", bytes.TrimSpace(line))
	}
	for {
		line, err := c.br.ReadSlice('\n')
		if err != nil {
			return err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case len(name) == 14 && bytes.EqualFold(name, []byte("content-length")):
			if c.left, err = strconv.ParseInt(string(value), 10, 64); err != nil {
				return err
			}
		case len(name) == 17 && bytes.EqualFold(name, []byte("transfer-encoding")):
			c.chunked, c.left = true, 0
		}
	}
	if c.left < 0 {
		return errors.New("a response whose length nobody says")
	}
	return nil
}

// next returns what has arrived of the content, valid until the next call; at its end io.EOF.
func (c *client) next() ([]byte, error) {
	if c.left == 0 {
		if !c.chunked {
			return nil, io.EOF
		}
		if err := c.nextChunk(); err != nil {
			return nil, err
		}
	}
	if _, err := c.br.Peek(1); err != nil {
		return nil, err
	}
	n := int(min(int64(c.br.Buffered()), c.left))
	b, err := c.br.Peek(n)
	if err == nil {
		_, err = c.br.Discard(n)
	}
	c.left -= int64(n)
	return b, err
}

// nextChunk reads up to the next chunk's content, or past the last one and gives io.EOF.
func (c *client) nextChunk() error {
	if c.inChunk {
		if _, err := c.br.Discard(2); err != nil {
			return err
		}
	}
	line, err := c.br.ReadSlice('\n')
	if err != nil {
		return err
	}
	size, _, _ := bytes.Cut(bytes.TrimSpace(line), []byte(";"))
	if c.left, err = strconv.ParseInt(string(size), 16, 64); err != nil || c.left < 0 {
		return fmt.Errorf("chunk size %q", size)
	}
	c.inChunk = true
	if c.left > 0 {
		return nil
	}
	c.chunked = false
	for len(bytes.TrimSpace(line)) > 0 { // trailers
		if line, err = c.br.ReadSlice('\n'); err != nil {
			return err
		}
	}
	return io.EOF
}

// rest reads the content away and returns how long it was.
func (c *client) rest() (n int64, err error) {
	for {
		b, err := c.next()
		n += int64(len(b))
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

// exchange sends a request and reads the answer, whose content must be want bytes long.
func (c *client) exchange(request []byte, want int64) error {
	if err := c.begin(request); err != nil {
		return err
	}
	if err := c.answer(); err != nil {
		return err
	}
	n, err := c.rest()
	if err == nil && n != want {
		err = fmt.Errorf("%d bytes of content, want %d", n, want)
	}
	return err
}

// check makes one small exchange and looks whether the credential came upstream.
func (c *client) check(t target) error {
	if err := c.begin(request("GET", "/json", 0)); err != nil {
		return err
	}
	if err := c.answer(); err != nil {
		return err
	}
	var all []byte
	for {
		b, err := c.next()
		all = append(all, b...)
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	if t.Credential && !bytes.Contains(all, []byte(`"credential":"right"`)) {
		return fmt.Errorf("%s did not add the credential: %.120q", t.Name, all)
	}
	return nil
}

func (c *client) close() {
	_ = c.nc.SetDeadline(time.Now().Add(time.Second))
	c.nc.Close()
}
