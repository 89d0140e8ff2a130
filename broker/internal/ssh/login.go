package ssh

import (
	"bytes"
	"errors"
	"fmt"

	"golang.org/x/crypto/ssh"
)

// A login is what a client has signed to log in with a key (RFC 4252 §7):
//
//	string session id  byte 50  string user  string "ssh-connection"  string method
//	bool TRUE  string algorithm  string public key  [string host key]
type login struct {
	session   []byte
	user      string
	algorithm string
	key       []byte
	hostKey   []byte // method hostbound alone
}

// The methods that sign with a key; the second is OpenSSH's, and names the host too.
const (
	methodPublicKey = "publickey"
	methodHostBound = "publickey-hostbound-v00@openssh.com"
)

// maxUser bounds the name of who logs in, in bytes.
const maxUser = 256

var errNoLogin = errors.New("what is to be signed is no login")

// parseLogin reads what is to be signed. Nothing else is ever signed: no file, no commit, no challenge of another
// protocol.
func parseLogin(data []byte) (login, error) {
	r := reader{b: data}
	l := login{session: r.str()}
	number, user, service, method, signed := r.byte(), r.str(), r.str(), r.str(), r.boolean()
	l.user, l.algorithm, l.key = string(user), string(r.str()), r.str()
	if string(method) == methodHostBound {
		l.hostKey = r.str()
	}
	const request = 50 // SSH_MSG_USERAUTH_REQUEST
	if !r.done() || number != request || string(service) != "ssh-connection" || !signed || len(user) > maxUser {
		return login{}, errNoLogin
	}
	if m := string(method); m != methodPublicKey && m != methodHostBound {
		return login{}, errNoLogin
	}
	return l, nil
}

// checkAgainst reports how the login is none with key on the connection that b says.
func (l *login) checkAgainst(b *bound, key []byte) error {
	switch {
	case !bytes.Equal(l.session, b.session):
		return errors.New("the login is for another connection")
	case !bytes.Equal(l.key, key):
		return errors.New("the login is with another key")
	case l.hostKey != nil && !bytes.Equal(l.hostKey, b.hostKey):
		return errors.New("the login is for another host")
	}
	return nil
}

// Flags of a request to sign with an RSA key (RFC 8332).
const (
	flagSHA256 = 2
	flagSHA512 = 4
)

// algorithmOf returns the algorithm to sign with by a key of a type: the login names it and, of RSA, the flags as well.
func algorithmOf(keyType, named string, flags uint32) (string, error) {
	if keyType != ssh.KeyAlgoRSA {
		if named != keyType || flags != 0 {
			return "", fmt.Errorf("the login is not to be signed as a key of type %s signs", keyType)
		}
		return named, nil
	}
	switch {
	case named == ssh.KeyAlgoRSASHA256 && flags == flagSHA256, named == ssh.KeyAlgoRSASHA512 && flags == flagSHA512:
		return named, nil
	}
	return "", errors.New("the login is not to be signed by SHA-256 or SHA-512, and SHA-1 is too weak")
}
