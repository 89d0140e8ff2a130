package control

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"torno.internal/protocol"
)

// Schemes of secrets that go into no HTTP request.
const (
	SchemeSSH      = "ssh"      // a private key that the session's SSH agent signs with
	SchemePostgres = "postgres" // the password of a PostgreSQL role
)

// Parameters of the schemes ssh and postgres.
const (
	ParamKnownHosts = "known-hosts" // lines of known_hosts for the audience, parted by commas
	ParamUser       = "user"        // who may be logged in as
	ParamDatabase   = "database"    // the one database; none: any
	ParamTLS        = "tls"         // TLSVerify (default) or TLSOff
	ParamAuth       = "auth"        // how the server may ask for the password, AuthScram (default) or a weaker way
)

// Values of ParamTLS and ParamAuth.
const (
	TLSVerify = "verify-full" // the server's certificate is for its name
	TLSOff    = "off"         // the connection is not encrypted

	AuthScram = "scram-sha-256"
	AuthMD5   = "md5"      // a hash that can be replayed and guessed offline is acceptable
	AuthPlain = "password" // the password itself may be sent, too
)

// OriginSchemeOf returns the scheme of the origins that a secret with this injector is bound to.
func OriginSchemeOf(in Injector) string {
	switch in.Scheme {
	case SchemeSSH, SchemePostgres:
		return in.Scheme
	}
	return originScheme
}

// SetParam sets a parameter, which stands where its name belongs.
func (in *Injector) SetParam(name, value string) {
	params := slices.DeleteFunc(slices.Clone(in.Params), func(p Param) bool { return p.Name == name })
	at := slices.IndexFunc(params, func(p Param) bool { return p.Name > name })
	if at < 0 {
		at = len(params)
	}
	in.Params = slices.Insert(params, at, Param{name, value})
}

// checkKnownHosts accepts lines of known_hosts, HOST TYPE KEY each. Whether the keys are keys is the broker's to say.
func checkKnownHosts(_, text string) error {
	for line := range strings.SplitSeq(text, ",") {
		if len(strings.Fields(line)) != 3 {
			return fmt.Errorf("%q is not HOST TYPE KEY, as known_hosts has it", line)
		}
	}
	return nil
}

// checkRole accepts the name of a user or a database.
func checkRole(_, name string) error {
	if len(name) > maxRole {
		return fmt.Errorf("a name of %d bytes, at most %d fit", len(name), maxRole)
	}
	return nil
}

const maxRole = 63 // bytes (NAMEDATALEN of PostgreSQL)

func oneOf(values ...string) func(key, value string) error {
	return func(_, value string) error {
		for _, v := range values {
			if v == value {
				return nil
			}
		}
		return fmt.Errorf("%q is none of %s", value, strings.Join(values, ", "))
	}
}

// checkPrivateKey accepts what looks like a private key in PEM without a passphrase. What it is is the broker's to say.
func checkPrivateKey(_ Injector, value []byte) error {
	switch {
	case !bytes.HasPrefix(value, []byte("-----BEGIN ")) || !bytes.Contains(value, []byte("PRIVATE KEY-----")):
		return errors.New("the value is no private key in PEM, as ssh-keygen writes it")
	case bytes.Contains(value, []byte("ENCRYPTED")):
		return errors.New("the private key has a passphrase")
	}
	return nil
}

// checkRolePassword accepts a password that every way to prepare one leaves as it is (RFC 4013).
func checkRolePassword(_ Injector, value []byte) error {
	if err := checkPlain(value, "a login"); err != nil {
		return err
	}
	if len(value) > maxRolePassword {
		return fmt.Errorf("a password of %d bytes, at most %d fit", len(value), maxRolePassword)
	}
	return nil
}

const maxRolePassword = 1 << 10 // bytes

// Authorities returns the authorities of m's audience.
func (m Meta) Authorities() ([]protocol.Authority, error) {
	all := make([]protocol.Authority, 0, len(m.Audience))
	for _, s := range m.Audience {
		_, a, err := ParseAudience(s)
		if err != nil {
			return nil, err
		}
		all = append(all, a)
	}
	return all, nil
}
