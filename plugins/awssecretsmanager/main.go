// Command torno-plugin-awssecretsmanager is a source of secrets in AWS Secrets Manager: a reference is the secret's name, or
// NAME#KEY where it is a JSON object.
//
//	[plugins.aws.config]
//	region = "eu-central-1"
//
// The file credentials holds ID:SECRET or ID:SECRET:TOKEN of a key that may call secretsmanager:GetSecretValue.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"torno.internal/broker/plugin"
)

func main() { plugin.Serve(&source{}) }

// Limits on what AWS says.
const (
	maxAnswer = 1 << 20 // bytes
	callWait  = 30 * time.Second
)

var errAnswer = errors.New("the answer is not that of Secrets Manager")

type source struct {
	endpoint, region string
	keys             aws.Credentials
	http             *http.Client
}

// Configure implements plugin.Configurer.
func (s *source) Configure(_ context.Context, c plugin.Config) error {
	var config struct {
		Region   string `json:"region"`
		Endpoint string `json:"endpoint"` // another than AWS's own
	}
	if err := c.Decode(&config); err != nil {
		return err
	}
	if config.Region == "" || strings.Trim(config.Region, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return fmt.Errorf("%w: region %q", plugin.ErrInvalid, config.Region)
	}
	s.region, s.endpoint = config.Region, config.Endpoint
	if s.endpoint == "" {
		s.endpoint = "https://secretsmanager." + s.region + ".amazonaws.com/"
	}
	u, err := url.Parse(s.endpoint)
	loopback := err == nil && (u.Hostname() == "127.0.0.1" || u.Hostname() == "::1")
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && !(u.Scheme == "http" && loopback) {
		return fmt.Errorf("%w: endpoint %q is not https", plugin.ErrInvalid, s.endpoint)
	}
	parts := strings.Split(strings.TrimSpace(string(c.Files["credentials"])), ":")
	if len(parts) < 2 || len(parts) > 3 || parts[0] == "" || parts[1] == "" {
		return fmt.Errorf("%w: the file credentials is not ID:SECRET or ID:SECRET:TOKEN", plugin.ErrInvalid)
	}
	s.keys = aws.Credentials{AccessKeyID: parts[0], SecretAccessKey: parts[1], SessionToken: strings.Join(parts[2:], "")}
	trust := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca := c.Files["ca"]; len(ca) > 0 {
		trust.RootCAs = x509.NewCertPool()
		if !trust.RootCAs.AppendCertsFromPEM(ca) {
			return fmt.Errorf("%w: the file ca holds no certificate", plugin.ErrInvalid)
		}
	}
	s.http = &http.Client{
		Timeout:       callWait,
		Transport:     &http.Transport{TLSClientConfig: trust, ForceAttemptHTTP2: true, IdleConnTimeout: time.Minute},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return nil
}

// Fetch implements plugin.Source.
func (s *source) Fetch(ctx context.Context, ref string) (plugin.Secret, error) {
	name, key, keyed := strings.Cut(ref, "#")
	if !valid(name) || keyed && (key == "" || strings.Contains(key, "#")) {
		return plugin.Secret{}, fmt.Errorf("%w: a reference is NAME or NAME#KEY", plugin.ErrInvalid)
	}
	var got struct {
		SecretString *string
		SecretBinary []byte
		VersionID    string `json:"VersionId"`
	}
	if err := s.call(ctx, "GetSecretValue", map[string]string{"SecretId": name}, &got); err != nil {
		return plugin.Secret{}, err
	}
	sec := plugin.Secret{Value: got.SecretBinary, Version: got.VersionID}
	if got.SecretString != nil {
		sec.Value = []byte(*got.SecretString)
	}
	if !keyed {
		return sec, nil
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(sec.Value, &fields); err != nil {
		return plugin.Secret{}, fmt.Errorf("%w: the secret is no JSON object", plugin.ErrInvalid)
	}
	var text string
	switch raw, ok := fields[key]; {
	case !ok:
		return plugin.Secret{}, fmt.Errorf("%w: there is no such key in it", plugin.ErrNotFound)
	case json.Unmarshal(raw, &text) == nil:
		sec.Value = []byte(text)
	default: // a number, say
		sec.Value = bytes.Clone(raw)
	}
	return sec, nil
}

// valid accepts the name or the ARN of a secret.
func valid(name string) bool {
	return name != "" && strings.Trim(name, "/.-") != "" && !strings.HasPrefix(name, "-") && !strings.HasPrefix(name, "/") &&
		!strings.Contains(name, "..") && !strings.Contains(name, "//") &&
		strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789/_+=.@:-") == ""
}

// call makes one call, signed by AWS Signature Version 4. Errors quote nothing that AWS said.
func (s *source) call(ctx context.Context, action string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.endpoint, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-amz-json-1.1")
	req.Header.Set("X-Amz-Target", "secretsmanager."+action)
	sum := sha256.Sum256(body)
	if err := v4.NewSigner().SignHTTP(ctx, s.keys, req, hex.EncodeToString(sum[:]), "secretsmanager", s.region, time.Now()); err != nil {
		return err
	}
	resp, err := s.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("%w: %w", plugin.ErrUnavailable, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	defer clear(answer)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", plugin.ErrUnavailable, err)
	case resp.StatusCode != http.StatusOK:
		return judge(resp.StatusCode, answer)
	case len(answer) > maxAnswer || json.Unmarshal(answer, out) != nil:
		return errAnswer
	}
	return nil
}

// kinds are what AWS's errors mean, by the ends of their names.
var kinds = map[string]error{
	"ResourceNotFoundException": plugin.ErrNotFound, "InvalidRequestException": plugin.ErrNotFound, // it is marked to be deleted
	"InvalidParameterException": plugin.ErrInvalid, "ValidationException": plugin.ErrInvalid,
	"AccessDeniedException": plugin.ErrDenied, "UnrecognizedClientException": plugin.ErrDenied, "InvalidSignatureException": plugin.ErrDenied,
	"ExpiredTokenException": plugin.ErrDenied, "DecryptionFailure": plugin.ErrDenied, "InvalidClientTokenId": plugin.ErrDenied,
	"ThrottlingException": plugin.ErrUnavailable, "InternalServiceError": plugin.ErrUnavailable,
}

// judge returns what an error means.
func judge(status int, answer []byte) error {
	var e struct {
		Type string `json:"__type"`
	}
	_ = json.Unmarshal(answer, &e) // what is no error of AWS's has no type
	name := e.Type[strings.LastIndexByte(e.Type, '#')+1:]
	if kind := kinds[name]; kind != nil {
		return fmt.Errorf("%w: %s", kind, name)
	}
	switch {
	case status == http.StatusForbidden || status == http.StatusUnauthorized:
		return fmt.Errorf("%w: status %d", plugin.ErrDenied, status)
	case status == http.StatusTooManyRequests || status >= 500:
		return fmt.Errorf("%w: status %d", plugin.ErrUnavailable, status)
	}
	return fmt.Errorf("status %d", status)
}
