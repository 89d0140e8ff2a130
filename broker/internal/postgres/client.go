// Package postgres logs a workload in to a PostgreSQL database with a password that it does not have. Towards the
// workload it is a server that asks for a placeholder at most, towards the database a client that knows the password
// (protocol version 3, SCRAM-SHA-256 by RFC 5802 and 7677). What follows the login is the workload's and the
// database's own.
package postgres

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"torno.internal/protocol"
	"torno.internal/protocol/postgres"
)

// version is the version of the protocol that is spoken to both sides: 3.0.
const version = 3 << 16

// A Key names one connection at a server, for who wants to cancel what it does.
type Key struct{ Process, Secret uint32 }

// A Start is how a client begins.
type Start struct {
	Cancel *Key // it wants to cancel, and nothing else
	Minor  bool // it speaks more than version 3.0, and must be told
	Params []Param
}

// A Param is one parameter of a startup message.
type Param struct{ Name, Value string }

// Get returns the value of the parameter called name, or "".
func (s *Start) Get(name string) string {
	for _, p := range s.Params {
		if p.Name == name {
			return p.Value
		}
	}
	return ""
}

// Database returns the database that the client wants: its user's, unless it says otherwise.
func (s *Start) Database() string {
	if d := s.Get("database"); d != "" {
		return d
	}
	return s.Get("user")
}

// maxOffers is how often a client may ask for encryption before it begins.
const maxOffers = 4

// ReadStart reads how the client on rw begins. It ends no encryption: what asks for it is told that there is none.
func ReadStart(rw io.ReadWriter) (*Start, error) {
	for range maxOffers {
		code, body, err := postgres.ReadStartup(rw)
		switch {
		case err != nil:
			return nil, err
		case code == postgres.CodeSSL && len(body) == 0, code == postgres.CodeGSS && len(body) == 0:
			if _, err := rw.Write([]byte{'N'}); err != nil {
				return nil, err
			}
			continue
		case code == postgres.CodeCancel && len(body) == 8:
			return &Start{Cancel: &Key{binary.BigEndian.Uint32(body), binary.BigEndian.Uint32(body[4:])}}, nil
		case code>>16 != version>>16:
			return nil, fmt.Errorf("protocol version %d.%d", code>>16, code&0xffff)
		}
		s, err := parseStart(body)
		if err == nil {
			s.Minor = s.Minor || code != version
		}
		return s, err
	}
	return nil, errors.New("the client asks for nothing but encryption")
}

// parseStart reads the parameters of a startup message: names and values that end in zero bytes, and one more.
func parseStart(body []byte) (*Start, error) {
	rest, ok := bytes.CutSuffix(body, []byte{0})
	if !ok {
		return nil, errors.New("a startup message without an end")
	}
	s := &Start{}
	for len(rest) > 0 {
		name, after, ok := bytes.Cut(rest, []byte{0})
		value, after2, ok2 := bytes.Cut(after, []byte{0})
		if !ok || !ok2 || len(name) == 0 {
			return nil, errors.New("a startup message whose parameters are no pairs")
		}
		rest = after2
		switch p := (Param{string(name), string(value)}); {
		case strings.HasPrefix(p.Name, "_pq_."): // extensions, of which none is spoken
			s.Minor = true
		case slices.ContainsFunc(s.Params, func(q Param) bool { return q.Name == p.Name }):
			return nil, fmt.Errorf("parameter %q stands twice", p.Name)
		case p.Name == "replication" && p.Value != "false" && p.Value != "off":
			return nil, protocol.Refuse(protocol.ReasonUnsupported, errors.New("a replication connection"))
		default:
			s.Params = append(s.Params, p)
		}
	}
	return s, nil
}

// Types of messages.
const (
	msgAuthentication = 'R'
	msgBackendKey     = 'K'
	msgError          = 'E'
	msgNegotiate      = 'v'
	msgNotice         = 'N'
	msgParameter      = 'S'
	msgPassword       = 'p'
	msgReady          = 'Z'
)

// Kinds of authentication messages.
const (
	authOK           = 0
	authPlain        = 3
	authMD5          = 5
	authSASL         = 10
	authSASLContinue = 11
	authSASLFinal    = 12
)

// maxPassword bounds what a client answers when it is asked for a password, in bytes.
const maxPassword = 4 << 10

// AskPassword asks the client on rw for a password and returns it.
func AskPassword(rw io.ReadWriter) (string, error) {
	if _, err := rw.Write(postgres.AppendMessage(nil, msgAuthentication, binary.BigEndian.AppendUint32(nil, authPlain))); err != nil {
		return "", err
	}
	kind, body, err := readMessage(rw, maxPassword)
	if err != nil {
		return "", err
	}
	password, ok := bytes.CutSuffix(body, []byte{0})
	if kind != msgPassword || !ok || bytes.IndexByte(password, 0) >= 0 {
		return "", errors.New("the client answers with something else than a password")
	}
	return string(password), nil
}

// readMessage reads one message whose body has at most limit bytes.
func readMessage(r io.Reader, limit uint32) (kind byte, body []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n < 4 || n-4 > limit {
		return 0, nil, fmt.Errorf("message %q of %d bytes, at most %d are wanted", head[0], n, limit)
	}
	body = make([]byte, n-4)
	if _, err := io.ReadFull(r, body); err != nil {
		return 0, nil, io.ErrUnexpectedEOF
	}
	return head[0], body, nil
}

// AppendVersion appends what tells a client that asks for more than version 3.0 what is spoken: nothing where it does not.
func AppendVersion(b []byte, s *Start) []byte {
	if !s.Minor {
		return b
	}
	body := binary.BigEndian.AppendUint32(nil, 0) // minor version
	return postgres.AppendMessage(b, msgNegotiate, binary.BigEndian.AppendUint32(body, 0))
}

// AppendAccepted appends what tells a client that it is logged in.
func AppendAccepted(b []byte) []byte {
	return postgres.AppendMessage(b, msgAuthentication, binary.BigEndian.AppendUint32(nil, authOK))
}
