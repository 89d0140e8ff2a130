package upstream

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unsafe"

	"torno.internal/broker/internal/credential"
	"torno.internal/protocol"
	"torno.internal/protocol/http1"
)

// WriteHead buffers the request's head: the path as it is, Host from the authority that was connected
// to, req.Fields without those that end at this hop and without any that a credential sets, and the
// credentials. Length is the content's if the workload declared it; -1 means unknown, sent chunked.
// Everything is checked again for bytes that would end a line. Nothing leaves before Flush, CloseWrite
// or a full buffer. The credentials' values are copied: the caller wipes them when WriteHead returns,
// the copies are wiped when they have left. Errors are *protocol.RefusedError.
func (x *Exchange) WriteHead(req *protocol.Request, creds []credential.Field, length int64) error {
	return x.writeHead(req, creds, length, nil)
}

// Confide has the request's head, and what leaves together with it, wiped from the buffers when it has left.
func (x *Exchange) Confide() { x.conn.w.Confide() }

// writeHead is WriteHead with fields of this hop's own.
func (x *Exchange) writeHead(req *protocol.Request, creds []credential.Field, length int64, own protocol.Fields) error {
	if err := checkRequest(req); err != nil {
		return err
	}
	for _, c := range creds {
		if err := checkCredential(c); err != nil {
			return protocol.Refuse(protocol.ReasonInternal, err)
		}
	}
	x.method, x.creds = req.Method, creds
	fields := x.conn.fields[:0]
	for _, l := range req.Fields {
		if !x.dropsField(l) {
			fields = append(fields, l)
		}
	}
	fields = append(fields, own...)
	err := x.writeLine(req, creds, fields, length)
	clear(fields)
	x.conn.fields = fields[:0]
	for i := 0; i < len(creds) && err == nil; i++ {
		if creds[i].Name != credential.Target {
			err = x.conn.w.AppendField(strings.ToLower(creds[i].Name), creds[i].Value)
		}
	}
	if err != nil {
		x.Abort()
		return refuse(err)
	}
	return nil
}

// writeLine begins the head, with the credentials' target if they have one.
func (x *Exchange) writeLine(req *protocol.Request, creds []credential.Field, fields protocol.Fields, length int64) error {
	i := slices.IndexFunc(creds, func(c credential.Field) bool { return c.Name == credential.Target })
	if i < 0 {
		return x.conn.w.WriteRequest(req.Method, req.Path, x.conn.origin.host, fields, length)
	}
	x.conn.w.Confide()
	return creds[i].Value.Use(func(target []byte) error {
		// A view, and no copy that nobody could wipe: the writers keep none.
		return x.conn.w.WriteRequest(req.Method, unsafe.String(unsafe.SliceData(target), len(target)), x.conn.origin.host, fields, length)
	})
}

// dropsField reports whether a field of the request stays here. TE has one value that means something
// to those behind the next hop. Transfer_Encoding goes as Transfer-Encoding does, since behind CGI it is that.
func (x *Exchange) dropsField(l protocol.Field) bool {
	if l.Name == "te" {
		return !strings.EqualFold(l.Value, "trailers")
	}
	name := protocol.FoldName(l.Name)
	return name == "content-length" || endsHere(name) || x.sets(name)
}

// sets reports whether a credential sets the field called name, folded.
func (x *Exchange) sets(name string) bool {
	return slices.ContainsFunc(x.creds, func(c credential.Field) bool { return protocol.FoldName(c.Name) == name })
}

// methodConnect asks for a tunnel, which Tunnel makes.
const methodConnect = "CONNECT"

func checkRequest(req *protocol.Request) error {
	if req.Method == methodConnect || req.Protocol != "" {
		return protocol.Refuse(protocol.ReasonUnsupported, fmt.Errorf("%s, protocol %q", req.Method, req.Protocol))
	}
	if !protocol.IsToken(req.Method) {
		return badRequest("method %q", req.Method)
	}
	if !isTarget(req.Method, req.Path) {
		return badRequest("path %q", req.Path)
	}
	for _, l := range req.Fields {
		if !protocol.IsToken(l.Name) || l.Name != strings.ToLower(l.Name) {
			return badRequest("field name %q", l.Name)
		}
		if !protocol.IsFieldValue(l.Value) {
			return badRequest("value of field %q", l.Name)
		}
	}
	return nil
}

func badRequest(format, what string) error {
	return protocol.Refuse(protocol.ReasonBadRequest, fmt.Errorf("malformed "+format, what))
}

// isTarget reports whether path may stand in a request line: origin-form in visible ASCII, or * for
// OPTIONS (RFC 9112 §3.2).
func isTarget(method, path string) bool {
	if path == "*" {
		return method == "OPTIONS"
	}
	for i := range len(path) {
		if path[i] <= ' ' || path[i] >= 0x7f {
			return false
		}
	}
	return strings.HasPrefix(path, "/")
}

// checkCredential looks once more, at the last moment, for what would split the request.
func checkCredential(c credential.Field) error {
	if c.Name == credential.Target {
		return c.Value.Use(func(b []byte) error {
			if len(b) > protocol.MaxPath || !protocol.IsPath(string(b[:min(len(b), protocol.MaxPath)])) {
				return errors.New("credential cannot stand in a target")
			}
			return nil
		})
	}
	if !protocol.IsToken(c.Name) || endsHere(strings.ToLower(c.Name)) {
		return fmt.Errorf("credential field %q", c.Name)
	}
	return c.Value.Use(func(b []byte) error {
		for i, ch := range b {
			blank := ch == ' ' || ch == '\t'
			if ch < ' ' && !blank || ch == 0x7f || blank && (i == 0 || i == len(b)-1) {
				return fmt.Errorf("credential for field %q cannot stand in a field", c.Name)
			}
		}
		return nil
	})
}

// Write writes content, at most what was declared. After an error of the connection the response may
// still be there to be read: servers answer early and close.
func (x *Exchange) Write(p []byte) (int, error) {
	if x.sent {
		return 0, errEnded
	}
	n, err := x.conn.w.Write(p)
	if err != nil {
		return n, writeError("request content", err)
	}
	return n, nil
}

// Flush sends what is buffered.
func (x *Exchange) Flush() error {
	if x.sent {
		return errEnded
	}
	if err := x.conn.w.Flush(); err != nil {
		return writeError("request", err)
	}
	return nil
}

// CloseWrite ends the request and sends what is buffered. Trailers travel where the content is
// chunked, without the fields that may not stand there, and are left out where it is not. If content
// is missing the connection is cut, so that nobody takes the request for whole.
func (x *Exchange) CloseWrite(trailer protocol.Fields) error {
	if x.sent {
		return errEnded
	}
	kept := trailer.DelFunc(func(l protocol.Field) bool {
		name := protocol.FoldName(l.Name)
		return forbiddenInTrailer(name) || x.sets(name)
	})
	if err := x.conn.w.Close(kept); err != nil {
		if errors.Is(err, http1.ErrShort) {
			x.Abort()
		}
		return writeError("request", err)
	}
	x.sent = true
	if err := x.conn.enterHead(); err != nil {
		return refuse(err)
	}
	return nil
}

// writeError gives an error of writing its reason: the workload's own mistake, or the connection's.
func writeError(what string, err error) error {
	if errors.Is(err, http1.ErrLong) || errors.Is(err, http1.ErrShort) {
		return protocol.Refuse(protocol.ReasonBadRequest, err)
	}
	return cutOff(what, err)
}
