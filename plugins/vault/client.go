package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"torno.internal/broker/plugin"
)

// Limits on what Vault says.
const (
	maxAnswer = 1 << 20 // bytes
	callWait  = 30 * time.Second
)

var errAnswer = errors.New("the answer is not Vault's")

// A client speaks Vault's HTTP API.
type client struct {
	base, namespace string
	login           string
	http            *http.Client
	token           atomic.Pointer[string]
}

// newClient returns a client of the Vault at address: https, or http on loopback. ca, if there is any, is trusted instead
// of the host's roots.
func newClient(address, namespace string, ca []byte) (*client, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.User != nil {
		return nil, fmt.Errorf("%w: address %q is no URL of a server", plugin.ErrInvalid, address)
	}
	loopback := u.Hostname() == "127.0.0.1" || u.Hostname() == "::1" || u.Hostname() == "localhost"
	if u.Scheme != "https" && !(u.Scheme == "http" && loopback) {
		return nil, fmt.Errorf("%w: address %q is not https", plugin.ErrInvalid, address)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(ca) > 0 {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(ca) {
			return nil, fmt.Errorf("%w: the file ca holds no certificate", plugin.ErrInvalid)
		}
	}
	c := &client{base: u.Scheme + "://" + u.Host + "/v1/", namespace: namespace, login: "auth/approle/login"}
	c.http = &http.Client{
		Timeout:       callWait,
		Transport:     &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true, MaxIdleConns: 4, IdleConnTimeout: time.Minute},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // it would take the token along
	}
	return c, nil
}

func (c *client) setToken(t string) { c.token.Store(&t) }

// A response is what Vault answers.
type response struct {
	Lease     string          `json:"lease_id"`
	Lasts     int64           `json:"lease_duration"`
	Renewable bool            `json:"renewable"`
	Data      json.RawMessage `json:"data"`
	Auth      *struct {
		Token     string `json:"client_token"`
		Lasts     int64  `json:"lease_duration"`
		Renewable bool   `json:"renewable"`
	} `json:"auth"`
}

// call makes one call. Errors match those of package plugin, and quote nothing that Vault said.
func (c *client) call(ctx context.Context, method, path string, in any) (*response, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, fmt.Errorf("%w: %q", plugin.ErrInvalid, path)
	}
	req.Header.Set("X-Vault-Request", "true")
	if c.namespace != "" {
		req.Header.Set("X-Vault-Namespace", c.namespace)
	}
	if t := c.token.Load(); t != nil && path != c.login {
		req.Header.Set("X-Vault-Token", *t)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("%w: %w", plugin.ErrUnavailable, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	defer clear(answer)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", plugin.ErrUnavailable, err)
	}
	if err := judge(resp.StatusCode); err != nil {
		return nil, err
	}
	r := &response{}
	if len(answer) == 0 || resp.StatusCode == http.StatusNoContent {
		return r, nil
	}
	if len(answer) > maxAnswer || json.Unmarshal(answer, r) != nil {
		return nil, errAnswer
	}
	return r, nil
}

// judge returns what a status means.
func judge(status int) error {
	kind := error(nil)
	switch {
	case status >= 200 && status < 300:
		return nil
	case status == http.StatusBadRequest:
		kind = plugin.ErrInvalid
	case status == http.StatusForbidden || status == http.StatusUnauthorized:
		kind = plugin.ErrDenied
	case status == http.StatusNotFound:
		kind = plugin.ErrNotFound
	case status == http.StatusTooManyRequests || status >= 500 || status == 412 || status >= 470:
		kind = plugin.ErrUnavailable
	default:
		return fmt.Errorf("Vault answers with status %d", status)
	}
	return fmt.Errorf("%w: status %d", kind, status)
}

// fields returns the fields that were read and, of the key-value engine's second version, which version they are.
func (r *response) fields() (data map[string]any, version string, err error) {
	d := json.NewDecoder(bytes.NewReader(r.Data))
	d.UseNumber()
	if err := d.Decode(&data); err != nil {
		return nil, "", errAnswer
	}
	meta, ok := data["metadata"].(map[string]any)
	if !ok {
		return data, "", nil
	}
	number, ok := meta["version"].(json.Number)
	if !ok {
		return data, "", nil
	}
	inner, ok := data["data"].(map[string]any)
	if !ok { // the version was deleted
		return nil, "", plugin.ErrNotFound
	}
	return inner, number.String(), nil
}

// text returns a field as it is given to others: text as it stands, numbers as they are written.
func text(data map[string]any, field string) ([]byte, error) {
	switch v := data[field].(type) {
	case string:
		if v != "" {
			return []byte(v), nil
		}
	case json.Number:
		return []byte(v.String()), nil
	case nil:
	default:
		return nil, fmt.Errorf("%w: the field is neither text nor a number", plugin.ErrInvalid)
	}
	return nil, fmt.Errorf("%w: there is no such field, or nothing in it", plugin.ErrNotFound)
}

// parse reads PATH[?version=N]#FIELD.
func parse(ref string) (path, field string, err error) {
	bad := func(why string) error { return fmt.Errorf("%w: a reference is PATH#FIELD: %s", plugin.ErrInvalid, why) }
	path, field, ok := strings.Cut(ref, "#")
	if !ok || field == "" || strings.Contains(field, "#") {
		return "", "", bad("one field")
	}
	path, query, versioned := strings.Cut(path, "?")
	if versioned {
		n, err := strconv.Atoi(strings.TrimPrefix(query, "version="))
		if err != nil || n < 1 || query != "version="+strconv.Itoa(n) {
			return "", "", bad("?version=N and nothing else")
		}
	}
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "" || strings.Trim(segment, ".") == "" || strings.ContainsFunc(segment, func(r rune) bool {
			return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("._@+=:-", r))
		}) {
			return "", "", bad("segments of letters, digits and ._@+=:-")
		}
	}
	if strings.HasPrefix(path, "sys/") || strings.HasPrefix(path, "auth/") {
		return "", "", bad("not of Vault's own")
	}
	if versioned {
		path += "?" + query
	}
	return path, field, nil
}
