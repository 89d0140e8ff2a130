package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"torno.internal/broker/plugin"
	"torno.internal/broker/plugin/plugintest"
)

func TestConformance(t *testing.T) {
	path := filepath.Join(t.TempDir(), ".env")
	write := func(t *testing.T, key, value string) {
		text := fmt.Sprintf("# a file\nOTHER='second value'\nEMPTY=\n%s=%s\n", key, value)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		at := time.Now().Add(time.Duration(len(value)) * time.Second) // however coarse the file system's clock
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	write(t, "API_KEY", "first-value")
	config, err := json.Marshal(map[string]string{"path": path})
	if err != nil {
		t.Fatal(err)
	}
	s := &source{}
	plugintest.Source(t, s, plugintest.SourceCase{
		Config: plugin.Config{JSON: config}, Versions: true, Missing: "NOTHING", Change: write,
		Have: map[string]string{"API_KEY": "first-value", "OTHER": "second value"},
	})
	if _, err := s.Fetch(t.Context(), "EMPTY"); !errors.Is(err, plugin.ErrNotFound) {
		t.Errorf("an empty value: %v", err)
	}
	if err := os.WriteFile(path, []byte("NOT A FILE\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Fetch(t.Context(), "API_KEY"); err == nil {
		t.Error("a file that is none")
	}
	os.Remove(path)
	if _, err := s.Fetch(t.Context(), "API_KEY"); !errors.Is(err, plugin.ErrUnavailable) {
		t.Errorf("no file: %v", err)
	}
	for _, bad := range []string{`{}`, `{"path":"relative"}`, `{"paths":"/x"}`} {
		if err := (&source{}).Configure(t.Context(), plugin.Config{JSON: []byte(bad)}); !errors.Is(err, plugin.ErrInvalid) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
