package run

import (
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"torno.internal/protocol"
	"torno.internal/protocol/bhttp"
	"torno.internal/protocol/transport"
)

// A route is one request of the run channel.
type route struct {
	method string
	serve  func(*server, *stream) error
}

var routes = map[string]route{
	protocol.PathStdin:     {"GET", (*server).stdin},
	protocol.PathRunEvents: {"GET", (*server).sendEvents},
	protocol.PathStdout:    {"POST", func(s *server, st *stream) error { return s.copyOut(st, s.Stdout) }},
	protocol.PathStderr:    {"POST", func(s *server, st *stream) error { return s.copyOut(st, s.Stderr) }},
	protocol.PathExit:      {"POST", (*server).exit},

	protocol.PathWorkspaceIn:  {"GET", (*server).sendWorkspace},
	protocol.PathWorkspaceOut: {"POST", (*server).receiveWorkspace},
}

// A stream is one connection, between exchanges or in one.
type stream struct {
	conn net.Conn
	r    *bhttp.Reader
	w    *bhttp.Writer
}

// serve serves one connection: its preface, then exchange after exchange.
func (s *server) serve(c net.Conn) error {
	if err := s.preface(c); err != nil {
		return err
	}
	st := &stream{c, bhttp.NewReader(c), bhttp.NewWriter(c)}
	var req protocol.Request
	for {
		if err := st.r.Await(); err != nil {
			if err == io.EOF {
				return nil
			}
			return err
		}
		if err := c.SetReadDeadline(time.Now().Add(protocol.HeadTimeout)); err != nil {
			return err
		}
		if err := st.r.ReadRequest(&req); err != nil {
			return err
		}
		if err := c.SetReadDeadline(time.Time{}); err != nil {
			return err
		}
		if err := s.exchange(st, &req); err != nil {
			return fmt.Errorf("%s: %w", req.Path, err)
		}
	}
}

// preface checks who is there.
func (s *server) preface(c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(protocol.PrefaceTimeout)); err != nil {
		return err
	}
	if uid, ok := transport.PeerUID(c); ok && s.Peer != nil && uid != *s.Peer {
		return fmt.Errorf("peer of user %d turned away", uid)
	}
	p, err := protocol.ReadPreface(c)
	if err != nil {
		return err
	}
	reply := protocol.PrefaceReply{Version: p.Version}
	switch {
	case p.Version < protocol.MinVersion || p.Version > protocol.Version:
		reply = protocol.PrefaceReply{Version: protocol.Version, Status: protocol.StatusVersion}
	case p.Kind != protocol.KindRun:
		reply.Status = protocol.StatusKind
	case subtle.ConstantTimeCompare(p.Token[:], s.Token[:]) != 1:
		reply.Status = protocol.StatusToken
	}
	if _, err := c.Write(reply.AppendTo(nil)); err != nil {
		return err
	}
	if reply.Status != protocol.StatusOK {
		return &protocol.StatusError{Status: reply.Status, Version: reply.Version}
	}
	return c.SetDeadline(time.Time{})
}

// exchange serves one request. Each comes once in a run: two readers of one input would each get half.
func (s *server) exchange(st *stream, req *protocol.Request) error {
	rt, known := routes[req.Path]
	published := strings.HasPrefix(req.Path, protocol.PathPublished)
	if published {
		rt, known = route{"POST", func(s *server, st *stream) error { return s.published(st, req.Path) }}, true
	}
	status := 0
	switch {
	case req.Scheme != protocol.Scheme || req.Authority != protocol.RunAuthority:
		status = 400
	case !known:
		status = 404
	case req.Method != rt.method:
		status = 405
	case !published && !s.take(req.Path):
		status = 409
	}
	if status != 0 {
		_ = st.answer(status)
		return fmt.Errorf("%s refused with status %d", req.Method, status)
	}
	if rt.method == "GET" {
		if err := st.drain(); err != nil {
			return err
		}
	}
	return rt.serve(s, st)
}

// drain reads the end of a request that has no content.
func (st *stream) drain() error {
	var one [1]byte
	if n, err := st.r.Read(one[:]); n > 0 {
		return errors.New("content where there is none")
	} else if err != io.EOF {
		return err
	}
	var trailer protocol.Fields
	return st.r.ReadTrailer(&trailer)
}

// answer sends a whole response, without content.
func (st *stream) answer(status int) error {
	if err := st.w.WriteResponse(&protocol.Response{Status: status}); err != nil {
		return err
	}
	return st.w.Close(nil)
}

// head sends a response's head at once.
func (st *stream) head() error {
	if err := st.w.WriteResponse(&protocol.Response{Status: 200}); err != nil {
		return err
	}
	return st.w.Flush()
}

// stdin sends standard input as it comes. With a terminal this is the moment at which it becomes raw:
// the guest asks for input when the workload is about to start.
func (s *server) stdin(st *stream) error {
	s.mu.Lock()
	s.started = true
	s.mu.Unlock()
	if s.Started != nil {
		s.Started()
	}
	in := input{file: s.Stdin, over: s.over}
	read := in.Read
	if s.Terminal != nil {
		if err := s.Terminal.Raw(); err != nil { // before the guest knows that it gets keys
			return err
		}
		read = (&escape{from: in, stop: s.escaped}).Read
	}
	if err := st.head(); err != nil {
		return err
	}
	buf := make([]byte, copyBuffer)
	for {
		n, err := read(buf)
		if n > 0 {
			if _, err := st.w.Write(buf[:n]); err != nil {
				return err
			}
			if err := st.w.Flush(); err != nil {
				return err
			}
		}
		if err == errOver {
			return nil // the connection closes without an end: not the end of the input
		}
		if err != nil { // a terminal that is gone is an end like any other
			return st.w.Close(nil)
		}
	}
}

// escaped ends the run at once, as the person asked for, or with a workspace the workload.
func (s *server) escaped() {
	if s.SendWorkspace != nil {
		s.restore()
		s.giveUp()
		return
	}
	tell(s.forced, protocol.Exit{Code: protocol.ExitSignalBase + int(unix.SIGKILL), Signal: "KILL"})
}

// copyOut writes an output to its end and then says that it is taken. If nobody reads it the run is
// stopped, as SIGPIPE would.
func (s *server) copyOut(st *stream, to *os.File) error {
	if !s.beginOutput() {
		return errors.New("output after the run's end")
	}
	defer s.output.Done()
	out := output{file: to, over: s.over}
	buf := make([]byte, copyBuffer)
	for {
		n, err := st.r.Read(buf)
		if n > 0 {
			if werr := out.write(buf[:n]); werr != nil {
				s.send(protocol.RunEvent{Type: protocol.RunStop})
				return werr
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	var trailer protocol.Fields
	if err := st.r.ReadTrailer(&trailer); err != nil {
		return err
	}
	return st.answer(200)
}

// sendEvents sends what the person does, one JSON a line, until the run is over.
func (s *server) sendEvents(st *stream) error {
	if err := st.head(); err != nil {
		return err
	}
	if s.Terminal != nil { // its size may have changed since the session was made
		s.resize()
	}
	for {
		select {
		case <-s.ctx.Done():
			return nil
		case e := <-s.events:
			line, err := json.Marshal(e)
			if err != nil {
				return err
			}
			if _, err := st.w.Write(append(line, '\n')); err != nil {
				return err
			}
			if err := st.w.Flush(); err != nil {
				return err
			}
		}
	}
}

// exit takes the guest's word on how the workload ended.
func (s *server) exit(st *stream) error {
	body, err := io.ReadAll(io.LimitReader(st.r, maxExit+1))
	if err != nil {
		return err
	}
	if len(body) > maxExit {
		return fmt.Errorf("exit of more than %d bytes", maxExit)
	}
	var exit protocol.Exit
	if err := json.Unmarshal(body, &exit); err != nil {
		return fmt.Errorf("unreadable exit: %w", err)
	}
	if exit.Code < 0 || exit.Code > 255 {
		return fmt.Errorf("exit code %d is not in 0 to 255", exit.Code)
	}
	var trailer protocol.Fields
	if err := st.r.ReadTrailer(&trailer); err != nil {
		return err
	}
	if s.Ended != nil {
		s.Ended()
	}
	err = st.answer(200)
	tell(s.exited, exit)
	return err
}
