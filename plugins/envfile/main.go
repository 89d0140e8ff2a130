// Command torno-plugin-envfile is a source of secrets that stand in a .env file: a reference is a name in it. It tells of
// changes. The file has to be among the plugin's paths, and its user able to read it.
//
//	[plugins.env-file.config]
//	path = "/etc/torno/app.env"
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"torno.internal/broker/plugin"
	"torno.internal/protocol/dotenv"
)

func main() { plugin.Serve(&source{}) }

// interval is how often the file is looked at.
const interval = time.Second

type source struct{ path string }

// Configure implements plugin.Configurer.
func (s *source) Configure(_ context.Context, c plugin.Config) error {
	var config struct {
		Path string `json:"path"`
	}
	if err := c.Decode(&config); err != nil {
		return err
	}
	if !filepath.IsAbs(config.Path) {
		return fmt.Errorf("%w: path %q is not absolute", plugin.ErrInvalid, config.Path)
	}
	s.path = config.Path
	return nil
}

// Fetch implements plugin.Source. The version is the time at which the file was written.
func (s *source) Fetch(ctx context.Context, ref string) (plugin.Secret, error) {
	if err := ctx.Err(); err != nil {
		return plugin.Secret{}, err
	}
	text, version, err := s.read()
	if err != nil {
		return plugin.Secret{}, err
	}
	entries, err := dotenv.Parse(s.path, text)
	clear(text)
	if err != nil {
		return plugin.Secret{}, err // which quotes no value
	}
	defer func() {
		for _, e := range entries {
			e.Value.Wipe()
		}
	}()
	for _, e := range entries {
		if e.Name == ref && e.Value.Len() > 0 {
			return plugin.Secret{Value: e.Value.AppendTo(nil), Version: version}, nil
		}
	}
	return plugin.Secret{}, fmt.Errorf("%w: no %q", plugin.ErrNotFound, ref)
}

// read returns the file, and when it was written.
func (s *source) read() (text []byte, version string, err error) {
	f, err := os.Open(s.path)
	if err != nil {
		return nil, "", explain(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, "", explain(err)
	}
	text, err = io.ReadAll(io.LimitReader(f, dotenv.MaxFile+1))
	return text, strconv.FormatInt(info.ModTime().UnixNano(), 10), err
}

func explain(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %w", plugin.ErrUnavailable, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: %w", plugin.ErrDenied, err)
	}
	return err
}

// Watch implements plugin.Watcher.
func (s *source) Watch(ctx context.Context, _ string, changed func()) error {
	last := s.written()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if now := s.written(); now != last {
			last = now
			changed()
		}
	}
}

// written returns when the file was written, and how long it is.
func (s *source) written() string {
	info, err := os.Stat(s.path)
	if err != nil {
		return ""
	}
	return fmt.Sprint(info.ModTime().UnixNano(), info.Size())
}
