package postgres

import (
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"torno.internal/protocol/postgres"
	"torno.internal/protocol/secret"
)

const password = "pg-4c1d9e8f7a6b5c4d3e2f1a0b"

// A fake is a server that says what a test wants.
type fake struct {
	net.Conn
	t testing.TB
}

func (f *fake) say(kind byte, body ...[]byte) {
	var all []byte
	for _, b := range body {
		all = append(all, b...)
	}
	_, _ = f.Write(postgres.AppendMessage(nil, kind, all))
}

func (f *fake) auth(method uint32, body string) {
	f.say(msgAuthentication, binary.BigEndian.AppendUint32(nil, method), []byte(body))
}

// hear reads what the client answers, "" if it has gone.
func (f *fake) hear() string {
	kind, body, err := readMessage(f, maxReply)
	if err != nil || kind != msgPassword {
		return ""
	}
	return string(body)
}

// ready says all that follows a login.
func (f *fake) ready() {
	f.auth(authOK, "")
	f.say(msgParameter, []byte("server_version\x0015\x00"))
	f.say(msgBackendKey, []byte{0, 0, 0, 1, 0, 0, 0, 2})
	f.say(msgReady, []byte("I"))
}

// A challenge is how a fake does SCRAM.
type challenge struct {
	offer      string // mechanisms
	iterations string
	nonce      func(string) string // of the client's
	signature  func([]byte) []byte // the server's
	password   string
}

func honest() challenge {
	return challenge{scramPlain + "\x00\x00", "4096", func(n string) string { return n + "server" }, func(b []byte) []byte { return b }, password}
}

// scram lets the client in if it knows the password, as RFC 5802 §3 says.
func (f *fake) scram(c challenge) {
	f.auth(authSASL, c.offer)
	first := f.hear()
	if first == "" {
		return
	}
	mechanism, rest, _ := strings.Cut(first, "\x00")
	message := rest[4:]
	header := message[:strings.Index(message, ",,")+2]
	bare := message[len(header):]
	salt := []byte("0123456789abcdef")
	nonce := c.nonce(strings.TrimPrefix(bare, "n=,r="))
	server := fmt.Sprintf("r=%s,s=%s,i=%s", nonce, base64.StdEncoding.EncodeToString(salt), c.iterations)
	f.auth(authSASLContinue, server)
	final := f.hear()
	without, proofText, ok := strings.Cut(final, ",p=")
	if !ok {
		return
	}
	proof, _ := base64.StdEncoding.DecodeString(proofText)
	salted, err := pbkdf2.Key(sha256.New, c.password, salt, 4096, 32)
	if err != nil {
		f.t.Error(err)
	}
	auth := []byte(bare + "," + server + "," + without)
	clientKey := mac(salted, []byte("Client Key"))
	stored := sha256.Sum256(clientKey)
	for i, b := range mac(stored[:], auth) {
		proof[i] ^= b
	}
	if sum := sha256.Sum256(proof); sum != stored {
		f.say(msgError, []byte("SFATAL\x00C28P01\x00Mpassword authentication failed\x00\x00"))
		return
	}
	if mechanism != scramPlain && mechanism != scramPlus {
		f.t.Errorf("mechanism %q", mechanism)
	}
	f.auth(authSASLFinal, "v="+base64.StdEncoding.EncodeToString(c.signature(mac(mac(salted, []byte("Server Key")), auth))))
	f.ready()
}

// login logs in to a server that does as script says.
func login(t testing.TB, auth string, state *tls.ConnectionState, script func(*fake)) (*Greeting, error) {
	t.Helper()
	ours, theirs := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer theirs.Close()
		if _, _, err := postgres.ReadStartup(theirs); err == nil {
			script(&fake{theirs, t})
			_, _ = io.Copy(io.Discard, theirs)
		}
	}()
	l := Login{User: "app", Database: "app", Password: newPassword(), Auth: auth, TLS: state, Params: []Param{{"user", "other"}, {"application_name", "x"}}}
	g, err := l.Do(ours)
	ours.Close()
	<-done
	return g, err
}

func newPassword() secret.Value { return secret.New([]byte(password)) }
