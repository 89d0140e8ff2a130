package plugintest

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"torno.internal/broker/plugin"
)

// A SourceCase says what a source under test is given, and has.
type SourceCase struct {
	Config  plugin.Config
	Have    map[string]string // values by reference; at least one
	Missing string            // a reference that there is nothing for

	// Change makes value the newest one behind a reference in Have. Nil: the values of this source don't change.
	Change func(t *testing.T, ref, value string)
	// Versions says that the source has versions: one for a value, as long as it is the same.
	Versions bool
}

// Source tests a source in this process.
func Source(t *testing.T, impl plugin.Source, c SourceCase) {
	testSource(t, Dial(t, impl), func() []byte { return nil }, &c)
}

// SourceProgram tests the source that the program at path is.
func SourceProgram(t *testing.T, path string, c SourceCase) {
	p := Start(t, path)
	testSource(t, p.Client, p.Output, &c)
}

func testSource(t *testing.T, client *plugin.Client, said func() []byte, c *SourceCase) {
	if len(c.Have) == 0 || c.Missing == "" {
		t.Fatal("a SourceCase needs a secret that is there and a reference to one that is not")
	}
	s := &sourceTest{client, c}
	within(t, "Configure", func(ctx context.Context) { s.configure(ctx, t) })
	if t.Failed() {
		t.FailNow()
	}
	t.Run("Fetch", s.fetch)
	t.Run("Versions", s.versions)
	t.Run("Missing", s.missing)
	t.Run("Hostile", s.hostile)
	t.Run("AtOnce", s.atOnce)
	t.Run("Cancelled", s.cancelled)
	t.Run("Change", s.change)
	t.Run("Close", func(t *testing.T) {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
	for ref, value := range c.Have {
		if bytes.Contains(said(), []byte(value)) {
			t.Errorf("the value of %q stands on standard error", ref)
		}
	}
}

type sourceTest struct {
	*plugin.Client
	c *SourceCase
}

// first returns one reference that there is a secret for.
func (s *sourceTest) first() string { return slices.Min(slices.Collect(maps.Keys(s.c.Have))) }

func (s *sourceTest) configure(ctx context.Context, t *testing.T) {
	d, err := s.Describe(ctx)
	if err != nil || !d.Source {
		t.Errorf("Describe: %+v, %v; want a source", d, err)
		return
	}
	if err := s.Configure(ctx, s.c.Config); err != nil {
		t.Error(err)
	}
}

func (s *sourceTest) fetch(t *testing.T) {
	for ref, want := range s.c.Have {
		within(t, "Fetch", func(ctx context.Context) {
			got, err := s.Fetch(ctx, ref)
			if err != nil {
				t.Errorf("Fetch(%q): %v", ref, err)
			} else if string(got.Value) != want {
				t.Errorf("Fetch(%q) returns %d bytes that are not the secret", ref, len(got.Value))
			}
		})
	}
}

func (s *sourceTest) versions(t *testing.T) {
	within(t, "Fetch", func(ctx context.Context) {
		one, err1 := s.Fetch(ctx, s.first())
		two, err2 := s.Fetch(ctx, s.first())
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(one.Value, two.Value) && one.Version != two.Version {
			t.Errorf("one value has the versions %q and %q", one.Version, two.Version)
		}
		if s.c.Versions && one.Version == "" {
			t.Error("no version")
		}
	})
}

func (s *sourceTest) missing(t *testing.T) {
	within(t, "Fetch", func(ctx context.Context) {
		if _, err := s.Fetch(ctx, s.c.Missing); !errors.Is(err, plugin.ErrNotFound) && !errors.Is(err, plugin.ErrDenied) {
			t.Errorf("Fetch(%q): %v; want ErrNotFound, or ErrDenied where the source does not tell", s.c.Missing, err)
		}
	})
}

// hostile asks for what no secret is behind, in ways that have led others astray.
func (s *sourceTest) hostile(t *testing.T) {
	refs := []string{
		"../../../../etc/passwd", "/etc/passwd", "..", ".", "-", "--help", "-c", "$(id)", "`id`", "a;id", "a|id", "a&id",
		"%2e%2e%2fetc%2fpasswd", "%00", "#", "a#b#c", "?", "a?b", "*", "{}", "{{.}}", "'", `"`, `\`, "//", "a//b",
		"http://127.0.0.1:1/", "file:///etc/passwd", strings.Repeat("a", plugin.MaxRef), strings.Repeat("a/", plugin.MaxRef/2-1) + "a",
	}
	for _, ref := range refs {
		within(t, "Fetch", func(ctx context.Context) {
			if got, err := s.Fetch(ctx, ref); err == nil {
				t.Errorf("Fetch(%q) returns a secret of %d bytes", ref, len(got.Value))
			}
		})
	}
	for _, ref := range []string{"", " a", "a\n", "a\x00b", "ä", strings.Repeat("a", plugin.MaxRef+1)} {
		if _, err := s.Fetch(t.Context(), ref); !errors.Is(err, plugin.ErrInvalid) {
			t.Errorf("Fetch(%.20q): %v, want ErrInvalid", ref, err)
		}
	}
	s.fetch(t) // it is still there
}

func (s *sourceTest) atOnce(t *testing.T) {
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() { s.fetch(t) })
	}
	all.Wait()
}

func (s *sourceTest) cancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Fetch(ctx, s.first()); err == nil {
		t.Error("Fetch succeeds after its context has ended")
	}
	s.fetch(t)
}

func (s *sourceTest) change(t *testing.T) {
	if s.c.Change == nil {
		t.Log("this source's values don't change")
		return
	}
	ref := s.first()
	told, stop := s.watch(t, ref)
	defer stop()
	before, err := s.Fetch(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	const value = "changed-by-the-conformance-test-000"
	s.c.Change(t, ref, value)
	deadline := time.Now().Add(patience)
	for {
		after, err := s.Fetch(t.Context(), ref)
		if err == nil && string(after.Value) == value {
			if after.Version == before.Version && before.Version != "" {
				t.Errorf("another value has the same version %q", after.Version)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the value that was set is not there: %v", err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	select {
	case <-told:
	case <-time.After(patience):
		t.Error("Watch does not tell of the change")
	}
}

// watch watches a reference. The channel is closed at the first change, or at once where the source does not watch.
func (s *sourceTest) watch(t *testing.T, ref string) (told chan struct{}, stop func()) {
	told = make(chan struct{})
	d, err := s.Describe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !d.Watches {
		close(told)
		return told, func() {}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	once := sync.OnceFunc(func() { close(told) })
	watching.Go(func() {
		if err := s.Watch(ctx, ref, once); ctx.Err() == nil {
			t.Errorf("Watch ended: %v", err)
		}
	})
	time.Sleep(200 * time.Millisecond) // until it watches
	return told, func() {
		cancel()
		within(t, "Watch", func(context.Context) { watching.Wait() })
	}
}
