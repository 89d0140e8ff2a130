package broker

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

const testPassphrase = "correct horse battery staple"

// safeBuffer is a buffer that several write to.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// A broker that is locked answers what it is, refuses all requests of the API but those three, takes the right passphrase,
// slows down who guesses, and records it. The passphrase is nowhere in its log.
func TestLocked(t *testing.T) {
	d := newDesk(t, nil)
	d.must(d.set("a", "KEY", testKey, 1))
	d.must(d.call("POST", control.PathKey+"/protect", control.KeyProtection{Protect: ProtectedByPassphrase, Passphrase: []byte(testPassphrase)}, nil))
	d.stop()
	log := &safeBuffer{}
	d.cfg.Log = slog.New(slog.NewTextHandler(log, nil))
	ready := make(chan struct{}, 2)
	d.cfg.Ready = func() { ready <- struct{}{} }
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() {
		cfg, err := NewLocked(d.cfg).Serve(ctx)
		if err != nil {
			served <- err
			return
		}
		b, err := Open(cfg)
		if err != nil {
			served <- err
			return
		}
		served <- errors.Join(b.Serve(ctx), b.Close())
	}()
	defer func() {
		cancel()
		d.must(<-served)
	}()
	<-ready
	checkLocked(d)
	began := time.Now()
	if code := d.unlock("wrong horse battery staple"); code != control.CodeUntrusted {
		t.Errorf("a wrong passphrase: %q", code)
	}
	for d.unlock(testPassphrase) == control.CodeBusy {
		time.Sleep(10 * time.Millisecond)
	}
	if waited := time.Since(began); waited < firstPause {
		t.Errorf("after a wrong one the right one is taken within %v", waited)
	}
	<-ready
	var infos []control.SecretInfo
	d.must(d.call("GET", control.PathSecrets, nil, &infos))
	if len(infos) != 1 {
		t.Errorf("%d secrets", len(infos))
	}
	for event, n := range map[string]int{eventUnlockRefused: 1, eventUnlocked: 1} {
		found := 0
		d.must(QueryAudit(t.Context(), AuditDir(d.cfg.StateDir), control.AuditFilter{Event: event}, func(*AuditEntry) error { found++; return nil }))
		if found != n {
			t.Errorf("%d records of %s, want %d", found, event, n)
		}
	}
	if strings.Contains(log.String(), "horse") || !strings.Contains(log.String(), "a wrong passphrase") {
		t.Errorf("the log: %s", log)
	}
}

// unlock gives a passphrase and returns the code of the error, if there is one.
func (d *desk) unlock(passphrase string) string {
	d.t.Helper()
	var refused *control.Error
	if err := d.call("POST", control.PathUnlock, control.KeyUnlock{Passphrase: []byte(passphrase)}, nil); errors.As(err, &refused) {
		return refused.Code
	}
	return ""
}

func checkLocked(d *desk) {
	d.t.Helper()
	var h control.Health
	d.must(d.call("GET", control.PathHealth, nil, &h))
	if !h.Locked || h.StateDir != d.cfg.StateDir {
		d.t.Errorf("health: %+v", h)
	}
	var k control.KeyInfo
	d.must(d.call("GET", control.PathKey, nil, &k))
	if !k.Locked || k.ID != "" {
		d.t.Errorf("the key: %+v", k)
	}
	for _, r := range control.Routes {
		path := strings.ReplaceAll(r.Path, "{id}", "x")
		if path == control.PathHealth || path == control.PathUnlock || path == control.PathKey && r.Method == http.MethodGet {
			continue
		}
		var refused *control.Error
		if err := d.call(r.Method, path, struct{}{}, nil); !errors.As(err, &refused) || refused.Code != control.CodeLocked || refused.Hint != unlockHint {
			d.t.Errorf("%s %s: %v", r.Method, path, err)
		}
	}
	if err := d.call("POST", control.PathSessions, control.SessionRequest{Agent: "a", Isolation: protocol.IsolationNamespace}, nil); err == nil {
		d.t.Error("a session is made")
	}
}

// A broker that is not locked says so.
func TestUnlockOpen(t *testing.T) {
	d := newDesk(t, nil)
	if code := d.unlock(testPassphrase); code != control.CodeConflict {
		t.Errorf("%q", code)
	}
}

// One that is ended while it is locked leaves no socket.
func TestLockedEnds(t *testing.T) {
	d := planDesk(t, nil)
	ctx, cancel := context.WithCancel(context.Background())
	d.cfg.Ready = cancel
	if _, err := NewLocked(d.cfg).Serve(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	d.start()
}
