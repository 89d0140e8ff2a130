package plugin_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"torno.internal/broker/plugin"
	"torno.internal/broker/plugin/plugintest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A shelf is a source, which watches, and a signer. Its faults make it fail the conformance test.
type shelf struct {
	mu      sync.Mutex
	have    map[string]string
	version int
	changed chan struct{} // closed with each change

	fault string
	seen  plugin.Config
	shut  bool
}

func newShelf(fault string) *shelf {
	return &shelf{have: map[string]string{"greeting": "hello-from-the-shelf", "other/key": "zweites"}, changed: make(chan struct{}), fault: fault}
}

func (s *shelf) Configure(_ context.Context, c plugin.Config) error {
	s.seen = c
	var into struct{ Colour string }
	return c.Decode(&into)
}

func (s *shelf) Fetch(ctx context.Context, ref string) (plugin.Secret, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	value, ok := s.have[ref]
	switch {
	case ctx.Err() != nil:
		return plugin.Secret{}, ctx.Err()
	case s.fault == "panics" && ref == "..":
		panic("at the disco: " + s.have["greeting"])
	case s.fault == "trusting" && strings.HasPrefix(ref, "/etc/"):
		return plugin.Secret{Value: []byte("root:x:0:0")}, nil
	case s.fault == "vague" && !ok:
		return plugin.Secret{}, errors.New("no " + s.have["greeting"])
	case !ok:
		return plugin.Secret{}, fmt.Errorf("%w: %q", plugin.ErrNotFound, ref)
	}
	version := fmt.Sprint(s.version)
	switch s.fault {
	case "restless":
		s.version++
	case "forgetful":
		version = "1"
	case "expired":
		return plugin.Secret{Value: []byte(value), Expires: time.Now().Add(-time.Second)}, nil
	case "talkative":
		version = strings.Repeat("v", plugin.MaxVersion+1)
	case "huge":
		return plugin.Secret{Value: make([]byte, plugin.MaxValue+1)}, nil
	case "empty":
		return plugin.Secret{}, nil
	}
	return plugin.Secret{Value: []byte(value), Version: version, Expires: time.Now().Add(time.Hour)}, nil
}

func (s *shelf) Watch(ctx context.Context, _ string, changed func()) error {
	for {
		s.mu.Lock()
		next := s.changed
		s.mu.Unlock()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-next:
			changed()
		}
	}
}

func (s *shelf) set(_ *testing.T, ref, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.have[ref] = value
	s.version++
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *shelf) Sign(ctx context.Context, r plugin.SignRequest) ([]byte, error) {
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case r.Key != "k":
		return nil, plugin.ErrNotFound
	case r.Algorithm != plugin.HMAC:
		return nil, plugin.ErrInvalid
	case s.fault == "short":
		return []byte("x"), nil
	}
	m := hmac.New(sha256.New, []byte("shelf-key"))
	if s.fault != "constant" {
		m.Write(r.Message)
	}
	return m.Sum(nil), nil
}

func (s *shelf) Close() error {
	s.shut = true
	return nil
}

func sourceCase(s *shelf) plugintest.SourceCase {
	return plugintest.SourceCase{
		Config: plugin.Config{JSON: []byte(`{"colour":"red"}`), Files: map[string][]byte{"token": []byte("t")}},
		Have:   map[string]string{"greeting": s.have["greeting"], "other/key": "zweites"}, Missing: "nothing", Versions: true,
		Change: s.set,
	}
}

func signerCase() plugintest.SignerCase {
	return plugintest.SignerCase{Keys: []plugintest.Key{{Name: "k", Algorithm: plugin.HMAC, Public: []byte("shelf-key")}}, Missing: "l"}
}

// onlySource and onlySigner hide what else a shelf is.
type onlySource struct{ plugin.Source }

type onlySigner struct{ plugin.Signer }

func TestConformance(t *testing.T) {
	s := newShelf("")
	plugintest.Source(t, s, sourceCase(s))
	if !s.shut || string(s.seen.Files["token"]) != "t" {
		t.Errorf("closed: %v, files %v", s.shut, s.seen.Files)
	}
	plugintest.Signer(t, onlySigner{newShelf("")}, signerCase())
	c := sourceCase(s)
	c.Config, c.Change = plugin.Config{}, nil
	c.Have = map[string]string{"other/key": "zweites"}
	plugintest.Source(t, onlySource{newShelf("")}, c)
}

// TestConformanceCatches runs the conformance test on shelves with a fault, each of which must fail it.
func TestConformanceCatches(t *testing.T) {
	for _, fault := range []string{"trusting", "vague", "restless", "forgetful", "expired", "talkative", "huge", "empty", "short", "constant"} {
		t.Run(fault, func(t *testing.T) {
			cmd := exec.Command(os.Args[0], "-test.run=^TestFaulty$", "-test.count=1")
			cmd.Env = append(os.Environ(), "TORNO_SHELF_FAULT="+fault)
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || !strings.Contains(string(out), "--- FAIL: TestFaulty") {
				t.Errorf("%v\n%s", err, out)
			}
			for line := range strings.Lines(string(out)) {
				if strings.Contains(line, ".go:") && strings.Contains(line, "hello-from-the-shelf") {
					t.Errorf("the conformance test quotes the secret: %s", line)
				}
			}
		})
	}
}

func TestFaulty(t *testing.T) {
	fault := os.Getenv("TORNO_SHELF_FAULT")
	if fault == "" {
		t.Skip("run by TestConformanceCatches")
	}
	s := newShelf(fault)
	t.Run("source", func(t *testing.T) { plugintest.Source(t, s, sourceCase(s)) })
	t.Run("signer", func(t *testing.T) { plugintest.Signer(t, s, signerCase()) })
}

// TestPanics has a plugin survive a panic, and say nothing about it.
func TestPanics(t *testing.T) {
	s := newShelf("panics")
	client := plugintest.Dial(t, s)
	_, err := client.Fetch(t.Context(), "..")
	if err == nil || strings.Contains(err.Error(), "hello") {
		t.Errorf("a panic: %v", err)
	}
}

// TestErrors has errors keep their meaning and lose their text.
func TestErrors(t *testing.T) {
	for _, want := range []error{plugin.ErrNotFound, plugin.ErrDenied, plugin.ErrInvalid, plugin.ErrUnavailable, context.DeadlineExceeded} {
		client := plugintest.Dial(t, failing{fmt.Errorf("reading s3cr3t: %w", want)})
		_, err := client.Fetch(t.Context(), "ref")
		if !errors.Is(err, want) || strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("%v: %v", want, err)
		}
	}
	client := plugintest.Dial(t, failing{errors.New("s3cr3t")})
	_, err := client.Fetch(t.Context(), "ref")
	var call *plugin.CallError
	if !errors.As(err, &call) || strings.Contains(err.Error(), "s3cr3t") {
		t.Error(err)
	}
	if err := client.Configure(t.Context(), plugin.Config{JSON: []byte(`{"a":1}`)}); !errors.Is(err, plugin.ErrInvalid) {
		t.Errorf("a configuration for what takes none: %v", err)
	}
	if err := client.Watch(t.Context(), "ref", func() {}); err == nil {
		t.Error("watching what does not watch")
	}
	if _, err := client.Sign(t.Context(), plugin.SignRequest{Key: "k", Message: make([]byte, plugin.MaxMessage+1)}); err == nil {
		t.Error("a message that is too long")
	}
}

type failing struct{ err error }

func (f failing) Fetch(context.Context, string) (plugin.Secret, error) {
	return plugin.Secret{}, f.err
}

func TestDecode(t *testing.T) {
	var into struct{ Address string }
	for text, ok := range map[string]bool{`{"address":"a"}`: true, ``: true, `{"adress":"a"}`: false, `{"address":1}`: false, `[`: false} {
		if err := (plugin.Config{JSON: []byte(text)}).Decode(&into); (err == nil) != ok || err != nil && !errors.Is(err, plugin.ErrInvalid) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
