package postgres

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"math/big"
	"net"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
	"torno.internal/protocol/postgres"
)

func endsWith(changed func(*challenge)) func(*fake) {
	return func(f *fake) {
		c := honest()
		changed(&c)
		f.scram(c)
	}
}

// The server is let to ask for the password in the ways that are allowed, must show that it knows it, and gets it in no
// other form. Whatever else it says ends the login.
func TestLogin(t *testing.T) {
	long := bytes.Repeat([]byte("x"), maxReply+1)
	var heard string
	plain := func(f *fake) { f.auth(authPlain, ""); heard = f.hear(); f.ready() }
	md5 := func(f *fake) { f.auth(authMD5, "salt"); heard = f.hear(); f.ready() }
	for name, c := range map[string]struct {
		auth   string
		script func(*fake)
		want   protocol.Reason // ReasonNone: logged in; ReasonInternal: any error
	}{
		"control":               {control.AuthScram, endsWith(func(*challenge) {}), protocol.ReasonNone},
		"more mechanisms":       {control.AuthScram, endsWith(func(c *challenge) { c.offer = "X\x00" + scramPlain + "\x00\x00" }), protocol.ReasonNone},
		"nothing asked for":     {control.AuthScram, (*fake).ready, protocol.ReasonNone},
		"other mechanisms":      {control.AuthScram, endsWith(func(c *challenge) { c.offer = "SCRAM-SHA-1\x00\x00" }), protocol.ReasonUpstreamAuth},
		"few iterations":        {control.AuthScram, endsWith(func(c *challenge) { c.iterations = "4095" }), protocol.ReasonUpstreamAuth},
		"many iterations":       {control.AuthScram, endsWith(func(c *challenge) { c.iterations = "262145" }), protocol.ReasonUpstreamAuth},
		"no number":             {control.AuthScram, endsWith(func(c *challenge) { c.iterations = "x" }), protocol.ReasonUpstreamAuth},
		"another nonce":         {control.AuthScram, endsWith(func(c *challenge) { c.nonce = func(string) string { return "other" } }), protocol.ReasonUpstreamAuth},
		"our nonce":             {control.AuthScram, endsWith(func(c *challenge) { c.nonce = func(n string) string { return n } }), protocol.ReasonUpstreamAuth},
		"a wrong signature":     {control.AuthScram, endsWith(func(c *challenge) { c.signature = func(b []byte) []byte { b[0] ^= 1; return b } }), protocol.ReasonUpstreamAuth},
		"no signature":          {control.AuthScram, func(f *fake) { f.auth(authSASL, scramPlain+"\x00\x00"); f.hear(); f.ready() }, protocol.ReasonUpstreamAuth},
		"a signature at once":   {control.AuthScram, func(f *fake) { f.auth(authSASLFinal, "v="); f.ready() }, protocol.ReasonUpstreamAuth},
		"the password in clear": {control.AuthScram, plain, protocol.ReasonUpstreamAuth},
		"md5":                   {control.AuthScram, md5, protocol.ReasonUpstreamAuth},
		"md5, allowed":          {control.AuthMD5, md5, protocol.ReasonNone},
		"in clear, md5 allowed": {control.AuthMD5, plain, protocol.ReasonUpstreamAuth},
		"in clear, allowed":     {control.AuthPlain, plain, protocol.ReasonNone},
		"another way":           {control.AuthPlain, func(f *fake) { f.auth(7, "") }, protocol.ReasonUpstreamAuth},
		"again and again": {control.AuthPlain, func(f *fake) {
			for range 20 {
				plain(f)
			}
		}, protocol.ReasonNone},
		"scram, then clear": {control.AuthPlain, func(f *fake) { f.auth(authSASL, scramPlain+"\x00\x00"); f.hear(); f.auth(authPlain, "") }, protocol.ReasonUpstreamAuth},
		"a long message":    {control.AuthScram, func(f *fake) { f.say(msgNotice, long) }, protocol.ReasonInternal},
		"a row":             {control.AuthScram, func(f *fake) { f.say('D', nil) }, protocol.ReasonInternal},
		"notices without end": {control.AuthScram, func(f *fake) {
			for range 1000 {
				f.say(msgNotice, []byte("x"))
			}
		}, protocol.ReasonInternal},
		"parameters without end": {control.AuthScram, func(f *fake) {
			f.auth(authOK, "")
			for range 1000 {
				f.say(msgParameter, long[:maxReply])
			}
		}, protocol.ReasonInternal},
		"two keys":              {control.AuthScram, func(f *fake) { f.auth(authOK, ""); f.say(msgBackendKey, long[:8]); f.say(msgBackendKey, long[:8]) }, protocol.ReasonInternal},
		"a password's question": {control.AuthScram, func(f *fake) { f.auth(authOK, ""); f.auth(authPlain, "") }, protocol.ReasonInternal},
		"nothing":               {control.AuthScram, func(f *fake) { f.Close() }, protocol.ReasonInternal},
		"no length":             {control.AuthScram, func(f *fake) { _, _ = f.Write([]byte{'R', 0, 0, 0, 3}) }, protocol.ReasonInternal},
	} {
		heard = ""
		g, err := login(t, c.auth, nil, c.script)
		var refused *protocol.RefusedError
		switch {
		case c.want == protocol.ReasonNone && (err != nil || g.Key == nil || *g.Key != Key{1, 2}):
			t.Errorf("%s: %v", name, err)
		case c.want == protocol.ReasonInternal && err == nil:
			t.Errorf("%s: logged in", name)
		case c.want == protocol.ReasonUpstreamAuth && (!errors.As(err, &refused) || refused.Reason != c.want):
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if c.auth != control.AuthPlain && strings.Contains(heard, password) {
			t.Errorf("%s: the server has the password", name)
		}
		if err != nil && strings.Contains(err.Error(), password) {
			t.Errorf("%s: the error holds the password", name)
		}
	}
	var said *ServerError
	if _, err := login(t, control.AuthScram, nil, endsWith(func(c *challenge) { c.password = "other" })); !errors.As(err, &said) || !strings.Contains(string(said.Message), "28P01") {
		t.Errorf("with another password: %v", err)
	}
}

// Over TLS the login is bound to the server's certificate where the server offers that, and says so where it does not.
func TestChannelBinding(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1)}, &x509.Certificate{SerialNumber: big.NewInt(1)}, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	state := &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}
	both := scramPlus + "\x00" + scramPlain + "\x00\x00"
	for _, c := range []struct {
		offer, header string
		state         *tls.ConnectionState
	}{{both, "p=tls-server-end-point,,", state}, {scramPlain + "\x00\x00", "y,,", state}, {both, "n,,", nil}, {both, "n,,", &tls.ConnectionState{}}} {
		s, err := newScram([]byte(c.offer), c.state)
		if err != nil || s.header != c.header || (len(s.binding) == 32) != (c.header[0] == 'p') {
			t.Errorf("%q: %+v, %v", c.offer, s, err)
		}
		if _, err := login(t, control.AuthScram, c.state, endsWith(func(x *challenge) { x.offer = c.offer })); err != nil {
			t.Errorf("%q: %v", c.offer, err)
		}
	}
}

func TestAskTLS(t *testing.T) {
	for answer, want := range map[string]bool{"S": true, "N": false, "E": false, "": false} {
		ours, theirs := net.Pipe()
		go func() {
			code, _, err := postgres.ReadStartup(theirs)
			if err != nil || code != postgres.CodeSSL {
				t.Errorf("asked with %d, %v", code, err)
			}
			_, _ = io.WriteString(theirs, answer)
			theirs.Close()
		}()
		if err := AskTLS(ours); (err == nil) != want {
			t.Errorf("answer %q: %v", answer, err)
		}
	}
}

func startupMessage(code uint32, body string) string {
	b := binary.BigEndian.AppendUint32(nil, uint32(postgres.StartupHead+len(body)))
	return string(binary.BigEndian.AppendUint32(b, code)) + body
}

// A dialogue reads what a client says and keeps what it is told.
type dialogue struct {
	io.Reader
	bytes.Buffer
}

func (d *dialogue) Read(p []byte) (int, error) { return d.Reader.Read(p) }

func TestReadStart(t *testing.T) {
	ssl, gss := startupMessage(postgres.CodeSSL, ""), startupMessage(postgres.CodeGSS, "")
	plain := startupMessage(version, "user\x00app\x00database\x00db\x00\x00")
	for name, c := range map[string]struct {
		said, told string
		want       *Start // nil: an error
	}{
		"plain":            {plain, "", &Start{Params: []Param{{"user", "app"}, {"database", "db"}}}},
		"asks for TLS":     {gss + ssl + plain, "NN", &Start{Params: []Param{{"user", "app"}, {"database", "db"}}}},
		"no parameters":    {startupMessage(version, "\x00"), "", &Start{}},
		"a newer version":  {startupMessage(version|2, "_pq_.x\x00y\x00user\x00app\x00\x00"), "", &Start{Minor: true, Params: []Param{{"user", "app"}}}},
		"cancel":           {startupMessage(postgres.CodeCancel, "\x00\x00\x00\x05\x00\x00\x00\x06"), "", &Start{Cancel: &Key{5, 6}}},
		"a long cancel":    {startupMessage(postgres.CodeCancel, "\x00\x00\x00\x05\x00\x00\x00\x06\x00"), "", nil},
		"version 2":        {startupMessage(2<<16, "\x00"), "", nil},
		"only questions":   {strings.Repeat(ssl, 10), "NNNN", nil},
		"bytes behind TLS": {startupMessage(postgres.CodeSSL, "x"), "", nil},
		"replication":      {startupMessage(version, "user\x00app\x00replication\x00database\x00\x00"), "", nil},
		"no replication":   {startupMessage(version, "replication\x00false\x00\x00"), "", &Start{Params: []Param{{"replication", "false"}}}},
		"a user twice":     {startupMessage(version, "user\x00app\x00user\x00postgres\x00\x00"), "", nil},
		"an empty user":    {startupMessage(version, "user\x00\x00user\x00postgres\x00\x00"), "", nil},
		"no end":           {startupMessage(version, "user\x00app"), "", nil},
		"no value":         {startupMessage(version, "user\x00\x00"), "", nil},
		"nothing":          {"", "", nil},
	} {
		d := &dialogue{Reader: strings.NewReader(c.said)}
		got, err := ReadStart(d)
		if (err == nil) != (c.want != nil) || c.want != nil && cmp.Diff(c.want, got) != "" || d.String() != c.told {
			t.Errorf("%s: %+v, %v, told %q", name, got, err, d.String())
		}
	}
}

func TestAskPassword(t *testing.T) {
	for said, want := range map[string]string{
		"p\x00\x00\x00\x06x\x00": "x", "p\x00\x00\x00\x05\x00": "", "p\x00\x00\x00\x05x": "error", "p\x00\x00\x00\x04": "error", "p\x00\x00\x00\x07x\x00\x00": "error",
		"Q\x00\x00\x00\x06x\x00": "error", "p\x00\x01\x00\x00": "error", "": "error",
	} {
		d := &dialogue{Reader: strings.NewReader(said)}
		got, err := AskPassword(d)
		if err != nil {
			got = "error"
		}
		if got != want || d.String() != "R\x00\x00\x00\x08\x00\x00\x00\x03" {
			t.Errorf("%q: %q, told %q", said, got, d.String())
		}
	}
}

func FuzzReadStart(f *testing.F) {
	f.Add([]byte(startupMessage(version, "user\x00app\x00database\x00db\x00\x00")))
	f.Add([]byte(startupMessage(postgres.CodeSSL, "") + startupMessage(postgres.CodeCancel, "12345678")))
	f.Fuzz(func(t *testing.T, said []byte) {
		s, err := ReadStart(&dialogue{Reader: bytes.NewReader(said)})
		if err == nil && s.Cancel == nil && strings.Contains(s.Get("user")+s.Database(), "\x00") {
			t.Fatalf("%+v", s)
		}
	})
}

// FuzzLogin is a server that says anything: it never hears the password, and ends the login or is logged in to.
func FuzzLogin(f *testing.F) {
	f.Add([]byte("R\x00\x00\x00\x08\x00\x00\x00\x00Z\x00\x00\x00\x05I"))
	f.Add([]byte("R\x00\x00\x00\x17\x00\x00\x00\x0aSCRAM-SHA-256\x00\x00"))
	f.Add([]byte("R\x00\x00\x00\x08\x00\x00\x00\x03"))
	f.Fuzz(func(t *testing.T, said []byte) {
		d := &dialogue{Reader: bytes.NewReader(said)}
		l := Login{User: "app", Database: "app", Password: newPassword(), Auth: control.AuthScram}
		_, _ = l.Do(d)
		if bytes.Contains(d.Bytes(), []byte(password)) {
			t.Fatal("the server has the password")
		}
	})
}
