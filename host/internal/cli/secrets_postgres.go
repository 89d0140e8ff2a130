package cli

import (
	"bytes"
	"errors"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// takeAddress takes a database's address apart where that is the value: host, user and database say where the password
// goes, and the password alone is the secret.
func (e *entry) takeAddress(cmd *cobra.Command) error {
	if e.meta.Inject.Scheme != control.SchemePostgres || e.source == sourcePlugin {
		return nil
	}
	if err := e.fetch(cmd); err != nil {
		return err
	}
	e.meta.Expose = control.ExposeNone // whatever the preset of its name says
	var a address
	err := e.value.Use(func(b []byte) (err error) {
		a, err = parseAddress(b)
		return err
	})
	if err != nil || a.host == "" {
		return err
	}
	for name, value := range map[string]string{control.ParamUser: a.user, control.ParamDatabase: a.database} {
		if given := e.meta.Inject.Param(name); given == "" && value != "" {
			e.meta.Inject.SetParam(name, value)
		}
	}
	if a.open && e.meta.Inject.Param(control.ParamTLS) != control.TLSOff {
		a.password.Wipe()
		return &hintError{errors.New("the address says sslmode=disable"), "--as postgres:tls=off if the password may go through the network unprotected"}
	}
	origin, err := originOf(a.host, control.SchemePostgres)
	if err == nil && len(e.meta.Audience) > 0 && !slices.Equal(e.meta.Audience, []string{origin}) {
		err = errors.New("the value is an address, which has a host of its own: leave --host out")
	}
	if err != nil {
		a.password.Wipe()
		return err
	}
	e.meta.Audience = []string{origin}
	e.value.Wipe()
	e.value = a.password
	return nil
}

// An address is a database's address as libpq takes it, taken apart.
type address struct {
	host, user, database string
	open                 bool // it wants no encryption
	password             secret.Value
}

// parseAddress reads postgresql://user:password@host[:port]/database[?…]. What is no URL is a password, and the zero
// address. Errors do not quote it.
func parseAddress(b []byte) (address, error) {
	if !bytes.HasPrefix(b, []byte("postgres://")) && !bytes.HasPrefix(b, []byte("postgresql://")) {
		return address{}, nil
	}
	u, err := url.Parse(string(b))
	if err != nil {
		return address{}, &hintError{errors.New("the address is no URL"), "postgresql://user:password@host:5432/database, where %40 is an at sign in a password"}
	}
	password, ok := u.User.Password()
	a := address{host: u.Host, user: u.User.Username(), database: strings.TrimPrefix(u.Path, "/"), open: u.Query().Get("sslmode") == "disable"}
	switch {
	case !ok || password == "":
		return address{}, errors.New("the address holds no password")
	case a.user == "":
		return address{}, errors.New("the address holds no user")
	case strings.Contains(a.host, ","):
		return address{}, errors.New("the address has several hosts; set a secret for each")
	}
	if _, err := protocol.ParseAuthority(a.host, 1); err != nil {
		return address{}, errors.New("the address has no host that can be dialled by its name")
	}
	a.password = secret.New([]byte(password))
	return a, nil
}
