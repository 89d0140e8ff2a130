// Shelf is a plugin that reads each secret from a file of its name in the directory SHELF. What the file says after an
// exclamation mark, it does instead.
package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"torno.internal/broker/plugin"
)

type shelf struct{ dir string }

func main() { plugin.Serve(shelf{os.Getenv("SHELF")}) }

// A volume is what a file holds.
type volume struct {
	Value   string
	Version string
	Seconds int    // until it expires; 0: never
	Fault   string // instead
}

func (s shelf) read(ref string) (v volume, err error) {
	b, err := os.ReadFile(filepath.Join(s.dir, filepath.Base(ref)))
	if errors.Is(err, os.ErrNotExist) {
		return v, plugin.ErrNotFound
	}
	if err == nil {
		err = json.Unmarshal(b, &v)
	}
	return v, err
}

func (s shelf) Fetch(ctx context.Context, ref string) (plugin.Secret, error) {
	v, err := s.read(ref)
	if err != nil {
		return plugin.Secret{}, err
	}
	out := []byte("the secret is " + v.Value + "\n")
	_, _ = syscall.Write(2, out)
	_, _ = syscall.Write(1, out)
	fmt.Fprintln(os.Stderr, "and again "+v.Value)
	switch v.Fault {
	case "crash":
		os.Exit(3)
	case "hang":
		<-ctx.Done()
		select {}
	case "flood":
		for {
			_, _ = syscall.Write(2, []byte(strings.Repeat(v.Value, 1000)))
		}
	case "panic":
		go panic(v.Value)
		select {}
	case "huge":
		return plugin.Secret{Value: []byte(strings.Repeat(v.Value, 100_000))}, nil
	case "denied":
		return plugin.Secret{}, fmt.Errorf("%w: %s", plugin.ErrDenied, v.Value)
	case "error":
		return plugin.Secret{}, errors.New(v.Value)
	case "newline":
		v.Value += "\r\nX-Injected: yes"
	}
	sec := plugin.Secret{Value: []byte(v.Value), Version: v.Version}
	if v.Seconds > 0 {
		sec.Expires = time.Now().Add(time.Duration(v.Seconds) * time.Second)
	}
	return sec, nil
}

// Watch looks at the file often.
func (s shelf) Watch(ctx context.Context, ref string, changed func()) error {
	last, _ := s.read(ref)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
		if now, _ := s.read(ref); now != last {
			last = now
			changed()
		}
	}
}

func (s shelf) Sign(_ context.Context, r plugin.SignRequest) ([]byte, error) {
	v, err := s.read(r.Key)
	if err != nil {
		return nil, err
	}
	if v.Fault == "crash" {
		os.Exit(3)
	}
	m := hmac.New(sha256.New, []byte(v.Value))
	m.Write(r.Message)
	return m.Sum(nil), nil
}
