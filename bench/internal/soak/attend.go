package soak

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// AttendCommand is the first argument of Attend.
const AttendCommand = "soak-guest"

// Attend is a session by hand, for machines without a VM inside: it registers one of an agent's with the broker that answers
// below XDG_RUNTIME_DIR, joins it as its guest, and asks a host for each path that it reads, one a line. It writes status,
// reason and what came. Where the broker is away it asks again.
func Attend(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	if len(args) != 2 {
		return fmt.Errorf("usage: %s AGENT HOST", AttendCommand)
	}
	h := &house{runtime: os.Getenv("XDG_RUNTIME_DIR")}
	h.client = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", filepath.Join(h.runtime, "torno", control.SocketName))
	}}}
	s, err := h.register(ctx, args[0], nil)
	if err != nil {
		return err
	}
	g, err := join(ctx, s)
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "session", s.ID)
	for lines := bufio.NewScanner(in); lines.Scan(); {
		a, err := g.insist(ctx, args[1], lines.Text())
		if err != nil {
			return err
		}
		fmt.Fprintln(out, a.status, a.reason, strings.TrimSpace(string(a.body)))
	}
	return h.end(ctx, s.ID)
}

// insist makes an exchange, and tries again where there is no broker.
func (g *guest) insist(ctx context.Context, host, path string) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		a, err := g.once(ctx, host, path)
		if err == nil {
			return a, nil
		}
		if sleep(ctx, 10*pause); ctx.Err() != nil {
			return a, err
		}
	}
}

func (g *guest) once(ctx context.Context, host, path string) (answer, error) {
	st, err := g.open(ctx, protocol.KindForward)
	if err != nil {
		return answer{}, err
	}
	defer st.Close()
	req := request("GET", path)
	req.Authority = host
	return st.ask(req, nil)
}
