// Package pluginhost starts the plugins that the operator declared, when they are needed, and asks them: for secrets, and
// for signatures. A plugin is taken for hostile. It runs confined (package confine), what it says is bounded in time
// and length, and nothing that it writes gets into a log, an error or the audit: only which of a closed table of
// things went wrong.
package pluginhost

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"torno.internal/broker/internal/confine"
	"torno.internal/protocol/control"
)

// What happens to plugins.
const (
	Started = "plugin_started"
	Stopped = "plugin_stopped" // it was not needed any more
	Failed  = "plugin_failed"  // at its start, or while it ran
)

// An Event says that something happened to a plugin's process.
type Event struct {
	Plugin string
	What   string
	Err    *Error // with Failed
}

// A Host has the operator's plugins. It is safe for concurrent use. Close it when done.
type Host struct {
	dir     string
	ctx     context.Context
	cancel  context.CancelFunc
	plugins map[string]*supervisor
}

// New returns a Host of plugins, none of which runs yet. Their sockets are made below dir, which is ours alone. notify
// is told of events; nil: nobody is.
func New(plugins map[string]control.Plugin, dir string, notify func(Event)) (*Host, error) {
	return newHost(plugins, dir, notify, usual)
}

func newHost(plugins map[string]control.Plugin, dir string, notify func(Event), life lifetimes) (*Host, error) {
	if notify == nil {
		notify = func(Event) {}
	}
	h := &Host{dir: filepath.Join(dir, "plugins"), plugins: map[string]*supervisor{}}
	if len(plugins) > control.MaxPlugins {
		return nil, fmt.Errorf("%d plugins, at most %d fit", len(plugins), control.MaxPlugins)
	}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	for i, name := range slices.Sorted(maps.Keys(plugins)) {
		p := plugins[name]
		if err := Check(name, &p); err != nil {
			h.cancel()
			return nil, fmt.Errorf("plugin %s: %w", name, err)
		}
		s := &supervisor{name: name, number: i, config: p, dir: h.dir, notify: notify, ctx: h.ctx, life: life, room: make(chan struct{}, maxCalls)}
		if p.User != "" {
			u, err := lookUpUser(p.User)
			if err != nil {
				h.cancel()
				return nil, fmt.Errorf("plugin %s: %w", name, err)
			}
			s.user = u
		}
		h.plugins[name] = s
	}
	return h, h.makeDir()
}

// makeDir makes the directory of the sockets, and clears away what an earlier broker left there.
func (h *Host) makeDir() error {
	if len(h.plugins) == 0 {
		return nil
	}
	if !confine.Reaches() { // plugins are other users, who can't come through to a place of ours
		dir, err := os.MkdirTemp("", "torno-plugins")
		if err != nil {
			return err
		}
		h.dir = dir
		return os.Chmod(dir, 0o711)
	}
	if err := os.RemoveAll(h.dir); err != nil {
		return err
	}
	return os.MkdirAll(h.dir, 0o700)
}

// Close stops all plugins.
func (h *Host) Close() {
	var all sync.WaitGroup
	for _, s := range h.plugins {
		s.mu.Lock()
		s.closed = true
		s.mu.Unlock()
	}
	h.cancel()
	for _, s := range h.plugins {
		all.Go(s.close)
	}
	all.Wait()
	if len(h.plugins) > 0 {
		_ = os.RemoveAll(h.dir)
	}
}

// Kind returns what a plugin is for, or "" where there is none of that name.
func (h *Host) Kind(name string) string {
	if s := h.plugins[name]; s != nil {
		return s.config.Kind
	}
	return ""
}

// Refresh returns after how long a value of a source is to be looked up again.
func (h *Host) Refresh(name string) time.Duration {
	if s := h.plugins[name]; s != nil && s.config.RefreshSeconds > 0 {
		return time.Duration(s.config.RefreshSeconds) * time.Second
	}
	return defaultRefresh
}

const defaultRefresh = 5 * time.Minute

// Names returns the names of all plugins, in order.
func (h *Host) Names() []string { return slices.Sorted(maps.Keys(h.plugins)) }

// List describes the plugins, by name. Their programs are read, to say whether they are those that were declared.
func (h *Host) List() []control.PluginInfo {
	infos := make([]control.PluginInfo, 0, len(h.plugins))
	for _, name := range h.Names() {
		s := h.plugins[name]
		i := s.info()
		program, err := s.openProgram()
		switch {
		case err == nil:
			program.Close()
			i.Binary = control.BinaryOK
		case codeIs(err, CodeChanged):
			i.Binary = control.BinaryChanged
		default:
			i.Binary = control.BinaryMissing
		}
		infos = append(infos, i)
	}
	return infos
}
