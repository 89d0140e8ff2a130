package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"torno.internal/broker/plugin"
	"torno.internal/broker/plugin/plugintest"
)

func config(t *testing.T, commands map[string][]string) plugin.Config {
	t.Helper()
	b, err := json.Marshal(map[string]any{"commands": commands})
	if err != nil {
		t.Fatal(err)
	}
	return plugin.Config{JSON: b}
}

func TestConformance(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret")
	write := func(t *testing.T, _, value string) {
		if err := os.WriteFile(file, []byte(value+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(t, "", "first-value-0123456789")
	plugintest.Source(t, &source{}, plugintest.SourceCase{
		Config: config(t, map[string][]string{"file": {"/bin/cat", file}, "say": {"/bin/echo", "said {}"}}),
		Have:   map[string]string{"file": "first-value-0123456789"}, Missing: "nothing", Change: write,
	})
}

func TestCommands(t *testing.T) {
	s := &source{}
	if err := s.Configure(t.Context(), config(t, map[string][]string{
		"say": {"/bin/echo", "said", "op://{}"}, "fail": {"/bin/false"}, "loud": {"/bin/sh", "-c", "yes"},
		"slow": {"/bin/sh", "-c", "sleep 3600 & wait"}, "leaves": {"/bin/sh", "-c", "setsid sleep 40 2>/dev/null & echo x"}, "missing": {"/no/such/program"}, "env": {"/usr/bin/env"},
	})); err != nil {
		t.Fatal(err)
	}
	got, err := s.Fetch(t.Context(), "say/Private/My Item/field")
	if err != nil || string(got.Value) != "said op://Private/My Item/field" {
		t.Errorf("%q, %v", got.Value, err)
	}
	for ref, want := range map[string]error{
		"say": plugin.ErrInvalid, "fail/x": plugin.ErrInvalid, "say/../x": plugin.ErrInvalid, "say/-x": plugin.ErrInvalid,
		"say/a//b": plugin.ErrInvalid, "say/$(id)": plugin.ErrInvalid, "say/": plugin.ErrInvalid, "other": plugin.ErrNotFound, "missing": plugin.ErrUnavailable,
	} {
		if _, err := s.Fetch(t.Context(), ref); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", ref, err, want)
		}
	}
	for _, ref := range []string{"fail", "loud"} {
		if _, err := s.Fetch(t.Context(), ref); err == nil {
			t.Errorf("%q succeeds", ref)
		}
	}
	for _, ref := range []string{"slow", "leaves"} {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		began := time.Now()
		if _, err := s.Fetch(ctx, ref); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 10*time.Second {
			t.Errorf("%s: %v after %v", ref, err, time.Since(began))
		}
		cancel()
	}
	t.Setenv("PLUGIN_CLIENT_CERT", "x")
	t.Setenv("OP_SESSION", "y")
	got, err = s.Fetch(t.Context(), "env")
	if err != nil || strings.Contains(string(got.Value), "PLUGIN_") || !strings.Contains(string(got.Value), "OP_SESSION=y") {
		t.Errorf("%v", err)
	}
	for _, bad := range []map[string][]string{{"a": {"echo"}}, {"a": {}}, {"a/b": {"/bin/echo"}}, {"a": {"/bin/{}"}}} {
		if err := (&source{}).Configure(t.Context(), config(t, bad)); !errors.Is(err, plugin.ErrInvalid) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}
