package transport

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"time"
)

// maxAnswer is the longest answer of a hybrid socket in bytes: "OK 4294967295\n".
const maxAnswer = 14

// dialHybrid asks the VMM's socket for a port inside the VM.
func dialHybrid(ctx context.Context, a Addr) (net.Conn, error) {
	if a.Port == 0 {
		return nil, fmt.Errorf("dialling %q: no port", a)
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", a.Path)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	err = handshake(c, a.Port)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = c.Close()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, fmt.Errorf("dialling port %d at %q: %w", a.Port, a, err)
	}
	return c, nil
}

// handshake says "CONNECT P\n" and reads "OK n\n", where n is the VMM's own port.
func handshake(c net.Conn, port uint32) error {
	if _, err := fmt.Fprintf(c, "CONNECT %d\n", port); err != nil {
		return err
	}
	return readAnswer(c)
}

// readAnswer reads the VMM's answer and not a byte more, for what follows is the peer's.
func readAnswer(r io.Reader) error {
	var answer [maxAnswer]byte
	n := 0
	for n == 0 || answer[n-1] != '\n' {
		if n == maxAnswer {
			return fmt.Errorf("answer %q is too long", answer)
		}
		if _, err := io.ReadFull(r, answer[n:n+1]); err != nil {
			return fmt.Errorf("no answer, so nobody listens there: %w", err)
		}
		n++
	}
	digits, ok := bytes.CutPrefix(answer[:n-1], []byte("OK "))
	if _, isNumber := parseNumber(string(digits)); !ok || !isNumber {
		return fmt.Errorf("answer %q", answer[:n])
	}
	return nil
}
