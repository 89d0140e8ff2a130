// Command torno-plugin-vault is a source of secrets in HashiCorp Vault or OpenBao: a reference is PATH#FIELD, as in
// secret/data/app#key, of the key-value engine in both versions or of anything that is read, such as database/creds/app#password.
//
//	[plugins.vault.config]
//	address = "https://vault.example.org:8200"
//	role_id = "…"                # AppRole; its secret id is the file secret_id
//	namespace = "…"              # if there are any
//
// Without role_id the file token holds a token. The file ca holds certificates, if Vault's is none that the host trusts. Tokens and
// leases are renewed while the plugin runs, and revoked when it ends, but for a token that it was given.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"torno.internal/broker/plugin"
)

func main() { plugin.Serve(&source{}) }

// A source is one Vault.
type source struct {
	client *client
	roleID string
	secret string // AppRole's secret id
	stop   context.CancelFunc
	ended  chan struct{}

	mu     sync.Mutex
	token  lease             // how long the client's token lasts
	leases map[string]*lease // by path
}

// A lease is something that Vault takes back unless it is renewed.
type lease struct {
	id        string
	renewable bool
	got       time.Time
	lasts     time.Duration // 0: for ever
	data      map[string]any
}

func (l *lease) ends() time.Time {
	if l.lasts == 0 {
		return time.Time{}
	}
	return l.got.Add(l.lasts)
}

// due reports whether two thirds of its time are over.
func (l *lease) due(now time.Time) bool { return l.lasts > 0 && now.Sub(l.got) > l.lasts*2/3 }

func (l *lease) over(now time.Time) bool { return l.lasts > 0 && !now.Before(l.ends()) }

// Configure implements plugin.Configurer: it logs in.
func (s *source) Configure(ctx context.Context, c plugin.Config) error {
	var config struct {
		Address   string `json:"address"`
		Namespace string `json:"namespace"`
		RoleID    string `json:"role_id"`
		AppRole   string `json:"approle"` // where it is mounted
	}
	if err := c.Decode(&config); err != nil {
		return err
	}
	var err error
	if s.client, err = newClient(config.Address, config.Namespace, c.Files["ca"]); err != nil {
		return err
	}
	if config.AppRole != "" {
		s.client.login = "auth/" + strings.Trim(config.AppRole, "/") + "/login"
	}
	s.roleID, s.secret, s.leases = config.RoleID, line(c.Files["secret_id"]), map[string]*lease{}
	given := line(c.Files["token"])
	if (given == "") == (s.roleID == "" || s.secret == "") {
		return fmt.Errorf("%w: want the file token, or role_id with the file secret_id", plugin.ErrInvalid)
	}
	if given != "" {
		s.client.setToken(given)
		err = s.lookUp(ctx)
	} else {
		err = s.logIn(ctx)
	}
	if err != nil {
		return err
	}
	looking, cancel := context.WithCancel(context.Background())
	s.stop, s.ended = cancel, make(chan struct{})
	go s.renewAll(looking)
	return nil
}

// line returns the first line of a file.
func line(b []byte) string {
	text, _, _ := strings.Cut(string(b), "\n")
	return strings.TrimSpace(text)
}

// lookUp learns how long a token that was given lasts.
func (s *source) lookUp(ctx context.Context) error {
	r, err := s.client.call(ctx, "GET", "auth/token/lookup-self", nil)
	if err != nil {
		return err
	}
	var t struct {
		TTL       int64 `json:"ttl"`
		Renewable bool  `json:"renewable"`
	}
	if err := json.Unmarshal(r.Data, &t); err != nil {
		return errAnswer
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.token = lease{renewable: t.Renewable, got: time.Now(), lasts: seconds(t.TTL)}
	return nil
}

// logIn gets a token by AppRole.
func (s *source) logIn(ctx context.Context) error {
	began := time.Now()
	r, err := s.client.call(ctx, "POST", s.client.login, map[string]string{"role_id": s.roleID, "secret_id": s.secret})
	if err != nil {
		if errors.Is(err, plugin.ErrInvalid) { // how Vault says that they are wrong
			err = fmt.Errorf("%w: logging in by AppRole", plugin.ErrDenied)
		}
		return err
	}
	if r.Auth == nil || r.Auth.Token == "" {
		return errAnswer
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.client.setToken(r.Auth.Token)
	s.token = lease{renewable: r.Auth.Renewable, got: began, lasts: seconds(r.Auth.Lasts)}
	return nil
}

// maxLasts bounds what Vault says that something lasts.
const maxLasts = 10 * 365 * 24 * time.Hour

func seconds(n int64) time.Duration {
	return min(max(time.Duration(n), 0), maxLasts/time.Second) * time.Second
}

// Fetch implements plugin.Source.
func (s *source) Fetch(ctx context.Context, ref string) (plugin.Secret, error) {
	path, field, err := parse(ref)
	if err != nil {
		return plugin.Secret{}, err
	}
	sec, err := s.fetch(ctx, path, field)
	if errors.Is(err, plugin.ErrDenied) && s.roleID != "" { // the token may have been revoked
		if err := s.logIn(ctx); err != nil {
			return plugin.Secret{}, err
		}
		sec, err = s.fetch(ctx, path, field)
	}
	return sec, err
}

func (s *source) fetch(ctx context.Context, path, field string) (plugin.Secret, error) {
	if sec, ok, err := s.held(ctx, path, field); ok {
		return sec, err
	}
	r, err := s.client.call(ctx, "GET", path, nil)
	if err != nil {
		return plugin.Secret{}, err
	}
	data, version, err := r.fields()
	if err != nil {
		return plugin.Secret{}, err
	}
	value, err := text(data, field)
	if err != nil {
		return plugin.Secret{}, err
	}
	sec := plugin.Secret{Value: value, Version: version}
	if r.Lease != "" {
		l := &lease{id: r.Lease, renewable: r.Renewable, got: time.Now(), lasts: seconds(r.Lasts), data: data}
		s.mu.Lock()
		s.leases[path] = l
		s.mu.Unlock()
		sec.Version, sec.Expires = l.version(), l.ends()
	}
	return sec, nil
}

// held returns a field of what is leased already, whose lease is renewed where it is time to.
func (s *source) held(ctx context.Context, path, field string) (sec plugin.Secret, ok bool, err error) {
	s.mu.Lock()
	l := s.leases[path]
	s.mu.Unlock()
	if l == nil {
		return sec, false, nil
	}
	s.renew(ctx, path, l)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leases[path] != l {
		return sec, false, nil
	}
	value, err := text(l.data, field)
	return plugin.Secret{Value: value, Version: l.version(), Expires: l.ends()}, true, err
}

// version tells leases apart.
func (l *lease) version() string { return "lease " + l.id[max(0, len(l.id)-8):] }

// Close implements io.Closer: it gives back what was leased.
func (s *source) Close() error {
	if s.stop == nil {
		return nil
	}
	s.stop()
	<-s.ended
	s.mu.Lock()
	leases := s.leases
	s.leases = map[string]*lease{}
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), closeWait)
	defer cancel()
	var errs []error
	if s.roleID != "" { // which takes all leases with it
		_, err := s.client.call(ctx, "POST", "auth/token/revoke-self", map[string]string{})
		return err
	}
	for _, l := range leases {
		_, err := s.client.call(ctx, "POST", "sys/leases/revoke", map[string]string{"lease_id": l.id})
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

const closeWait = 4 * time.Second
