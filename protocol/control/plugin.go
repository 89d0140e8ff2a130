package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Paths of the control API that are about plugins.
const (
	PathPlugins     = "/v1/plugins"       // GET → []PluginInfo
	PathPluginCheck = "/v1/plugins/check" // POST PluginCheck → PluginReport
)

// What a plugin is for.
const (
	PluginSource = "source" // fetches secrets
	PluginSigner = "signer" // signs with keys that the broker never has
)

// A Plugin is a program that the operator lets the broker start.
type Plugin struct {
	Kind   string `json:"kind"`   // PluginSource or PluginSigner
	Path   string `json:"path"`   // absolute
	SHA256 string `json:"sha256"` // of the program, hex

	Config json.RawMessage   `json:"config,omitempty"` // what it is told, an object
	Files  map[string]string `json:"files,omitempty"`  // files whose contents it is told, by the name that it knows them by

	// What of the host it is given beside that. The zero values give nothing.
	Env      map[string]string `json:"env,omitempty"`
	Paths    []string          `json:"paths,omitempty"`    // to read and execute from
	Writable []string          `json:"writable,omitempty"` // and to write
	Network  bool              `json:"network,omitempty"`
	User     string            `json:"user,omitempty"` // whom it runs as, where the broker is root; none: nobody else

	TimeoutSeconds int `json:"timeout_seconds,omitempty"` // that one call may take; 10
	RefreshSeconds int `json:"refresh_seconds,omitempty"` // after which a value is looked up again, where the source does not tell of changes; 300
	MemoryMiB      int `json:"memory_mib,omitempty"`      // 512
}

// Limits on plugins.
const (
	MaxPlugins    = 64
	MaxPluginName = 32
	MaxSource     = MaxPluginName + 1 + 1<<10 // bytes of Meta.Source
)

// ValidPlugin reports whether name can be a plugin's: lower-case letters, digits and hyphens, a letter first.
func ValidPlugin(name string) bool {
	return name != "" && len(name) <= MaxPluginName && name[0] >= 'a' && name[0] <= 'z' &&
		strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// PluginGrammar says what ValidPlugin wants.
const PluginGrammar = "lower-case letters, digits and hyphens, a letter first, at most 32"

// ParseSource reads PLUGIN:REF, where a secret's value or key is: which plugin has it, and how that calls it.
func ParseSource(source string) (plugin, ref string, err error) {
	plugin, ref, ok := strings.Cut(source, ":")
	switch {
	case !ok || !ValidPlugin(plugin):
		return "", "", fmt.Errorf("%q is not PLUGIN:REF; a plugin's name has %s", source, PluginGrammar)
	case ref == "" || len(source) > MaxSource:
		return "", "", fmt.Errorf("%q: a reference has 1 to %d bytes", source[:min(len(source), 64)], MaxSource-MaxPluginName-1)
	case badFieldByte([]byte(ref)) >= 0 || strings.TrimSpace(ref) != ref:
		return "", "", fmt.Errorf("%q: a reference is visible ASCII", source)
	}
	return plugin, ref, nil
}

// checkSource accepts a secret that is kept here, or one whose place elsewhere can be named.
func checkSource(m *Meta) error {
	switch _, _, err := ParseSource(m.Source); {
	case m.Source == "":
		return nil
	case err != nil:
		return err
	case m.Inject.Scheme == SchemeRefresh:
		return errors.New("a refresh token is replaced by what it is traded for, which can't be written back to where it is kept")
	case m.Weak:
		return errors.New("whether a secret that is kept elsewhere is weak shows when it is fetched")
	}
	return nil
}

// States of a plugin.
const (
	PluginIdle    = "idle"    // it does not run: nobody has needed it, or not for long
	PluginRunning = "running" // its process answers
	PluginFailed  = "failed"  // the last start or call failed; it is tried again, not before Retry
)

// Whether the program of a plugin is the one that was declared.
const (
	BinaryOK      = "ok"
	BinaryChanged = "changed" // its SHA-256 is another
	BinaryMissing = "missing" // or can't be read
)

// PluginInfo is what a list shows.
type PluginInfo struct {
	Name    string    `json:"name"`
	Kind    string    `json:"kind"`
	Path    string    `json:"path"`
	SHA256  string    `json:"sha256"` // as declared
	Binary  string    `json:"binary"` // BinaryOK, BinaryChanged or BinaryMissing
	State   string    `json:"state"`
	Version int       `json:"version,omitempty"` // of the protocol that it speaks; 0: not known yet
	PID     int       `json:"pid,omitempty"`
	Started time.Time `json:"started,omitzero"`
	Calls   uint64    `json:"calls"`
	Failed  uint64    `json:"failed"` // of them and of starts

	LastError string    `json:"last_error,omitempty"` // quotes nothing that the plugin wrote
	LastCode  string    `json:"last_code,omitempty"`  // of LastError, for programs
	LastTime  time.Time `json:"last_time,omitzero"`
	Retry     time.Time `json:"retry,omitzero"` // with PluginFailed
}

// A PluginCheck asks for a plugin to be started apart from the one that serves, and tried.
type PluginCheck struct {
	Name string `json:"name"`
	Ref  string `json:"ref,omitempty"` // a secret to fetch, or a key to sign with
	Alg  string `json:"alg,omitempty"` // by which, with a signer
}

// A PluginReport is what was found.
type PluginReport struct {
	Name   string       `json:"name"`
	OK     bool         `json:"ok"`
	Steps  []PluginStep `json:"steps"`            // in order, up to the first that failed
	Output string       `json:"output,omitempty"` // the end of what it wrote on standard error, without the secrets that are known
}

// A PluginStep is one thing that was tried.
type PluginStep struct {
	What   string `json:"what"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail,omitempty"`
	Hint   string `json:"hint,omitempty"`
}
