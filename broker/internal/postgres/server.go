package postgres

import (
	"crypto/md5" //nolint:gosec // what old servers ask for, where the operator allows it
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
	"torno.internal/protocol/postgres"
	"torno.internal/protocol/secret"
)

// Limits on what a server says until a client is logged in, in bytes.
const (
	maxReply    = 64 << 10 // one message
	maxGreeting = 1 << 20  // all of them
)

// A Login is who logs in to a server, and how.
type Login struct {
	User, Database string
	Password       secret.Value
	Auth           string // the weakest way in which the server may ask for the password: control.AuthScram, AuthMD5 or AuthPlain
	Params         []Param
	TLS            *tls.ConnectionState // nil: not encrypted
}

// A Greeting is what a server says once it has let a client in.
type Greeting struct {
	Messages []byte // for the client: parameters and notices; then the place of the key; then that the server is ready
	Key      *Key   // nil: there is none
	Ready    []byte
}

// A ServerError is what a server says instead of letting a client in, for the client.
type ServerError struct{ Message []byte }

func (e *ServerError) Error() string { return "the server refuses the login" }

// AskTLS asks the server on rw for TLS. It reports an error where the server has none.
func AskTLS(rw io.ReadWriter) error {
	request := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, postgres.StartupHead), postgres.CodeSSL)
	if _, err := rw.Write(request); err != nil {
		return err
	}
	var answer [1]byte // and not a byte more: what follows belongs to TLS
	if _, err := io.ReadFull(rw, answer[:]); err != nil {
		return err
	}
	if answer[0] != 'S' {
		return protocol.Refuse(protocol.ReasonUpstreamTLS, errors.New("the server speaks no TLS"))
	}
	return nil
}

// Cancel asks the server on w to cancel what the connection called key does.
func Cancel(w io.Writer, key Key) error {
	b := binary.BigEndian.AppendUint32(nil, StartupCancel)
	for _, n := range []uint32{postgres.CodeCancel, key.Process, key.Secret} {
		b = binary.BigEndian.AppendUint32(b, n)
	}
	_, err := w.Write(b)
	return err
}

// StartupCancel is the length of a request to cancel, in bytes.
const StartupCancel = 16

// Do logs in at the server on rw and returns what it says then. Its error is a *ServerError where the server itself
// says why not.
func (l *Login) Do(rw io.ReadWriter) (*Greeting, error) {
	if _, err := rw.Write(l.startup()); err != nil {
		return nil, err
	}
	var exchange *scram
	for range 8 {
		kind, body, err := readMessage(rw, maxReply)
		switch {
		case err != nil:
			return nil, err
		case kind == msgError:
			return nil, &ServerError{postgres.AppendMessage(nil, msgError, body)}
		case kind == msgNotice, kind == msgNegotiate:
			continue
		case kind != msgAuthentication || len(body) < 4:
			return nil, fmt.Errorf("message %q instead of one about the login", kind)
		}
		method, data := binary.BigEndian.Uint32(body), body[4:]
		if method == authOK {
			if exchange != nil && !exchange.proved {
				return nil, refuseAuth("the server has not shown that it knows the password")
			}
			return readGreeting(rw)
		}
		reply, err := l.answer(method, data, &exchange)
		if err != nil {
			return nil, err
		}
		if reply == nil {
			continue
		}
		_, err = rw.Write(postgres.AppendMessage(nil, msgPassword, reply))
		secret.Wipe(reply)
		if err != nil {
			return nil, err
		}
	}
	return nil, errors.New("the login does not come to its end")
}

func refuseAuth(format string, args ...any) error {
	return protocol.Refuse(protocol.ReasonUpstreamAuth, fmt.Errorf(format, args...))
}

func (l *Login) startup() []byte {
	b := binary.BigEndian.AppendUint32(make([]byte, 4), version)
	add := func(name, value string) {
		b = append(append(append(append(b, name...), 0), value...), 0)
	}
	add("user", l.User)
	add("database", l.Database)
	for _, p := range l.Params {
		if p.Name != "user" && p.Name != "database" {
			add(p.Name, p.Value)
		}
	}
	b = append(b, 0)
	binary.BigEndian.PutUint32(b, uint32(len(b)))
	return b
}

// answer answers one way in which the server asks for the password; nil: it wants no answer.
func (l *Login) answer(method uint32, data []byte, exchange **scram) ([]byte, error) {
	switch s := *exchange; {
	case method == authSASL && s == nil:
		var err error
		if *exchange, err = newScram(data, l.TLS); err != nil {
			return nil, err
		}
		return (*exchange).first(), nil
	case method == authSASLContinue && s != nil && !s.answered:
		return s.answer(data, l.Password)
	case method == authSASLFinal && s != nil && s.answered:
		return nil, s.verify(data)
	case method == authMD5 && s == nil && len(data) == 4 && l.Auth != control.AuthScram:
		return l.md5(data), nil
	case method == authPlain && s == nil && len(data) == 0 && l.Auth == control.AuthPlain:
		return append(l.Password.AppendTo(nil), 0), nil
	}
	return nil, refuseAuth("the server asks for the password in way %d, which is not allowed", method)
}

// md5 is the password as old servers want it: md5(md5(password user) salt).
func (l *Login) md5(salt []byte) []byte {
	clear := append(l.Password.AppendTo(nil), l.User...)
	inner := md5.Sum(clear) //nolint:gosec
	secret.Wipe(clear)
	outer := md5.Sum(append([]byte(hex.EncodeToString(inner[:])), salt...)) //nolint:gosec
	return append([]byte("md5"+hex.EncodeToString(outer[:])), 0)
}

// readGreeting reads what follows a login, until the server is ready.
func readGreeting(r io.Reader) (*Greeting, error) {
	g := &Greeting{}
	for total := 0; total < maxGreeting; {
		kind, body, err := readMessage(r, maxReply)
		if err != nil {
			return nil, err
		}
		total += len(body)
		switch kind {
		case msgBackendKey:
			if len(body) != 8 || g.Key != nil {
				return nil, errors.New("a key that is none of version 3.0")
			}
			g.Key = &Key{binary.BigEndian.Uint32(body), binary.BigEndian.Uint32(body[4:])}
		case msgParameter, msgNotice:
			g.Messages = postgres.AppendMessage(g.Messages, kind, body)
		case msgReady:
			g.Ready = postgres.AppendMessage(nil, kind, body)
			return g, nil
		case msgError:
			return nil, &ServerError{postgres.AppendMessage(nil, msgError, body)}
		default:
			return nil, fmt.Errorf("message %q before the server is ready", kind)
		}
	}
	return nil, errors.New("the server says too much before it is ready")
}

// Append appends the greeting for a client, to which its connection is called key.
func (g *Greeting) Append(b []byte, key *Key) []byte {
	b = append(b, g.Messages...)
	if key != nil {
		body := binary.BigEndian.AppendUint32(nil, key.Process)
		b = postgres.AppendMessage(b, msgBackendKey, binary.BigEndian.AppendUint32(body, key.Secret))
	}
	return append(b, g.Ready...)
}
