// Package config reads the two files that people write: torno.toml, which comes with a workload and may
// only narrow, and broker.toml, which is the operator's. Both are TOML v1.0, read strictly: everything
// unknown, misspelt or of the wrong type is an error with its line, all at once. Rules are judged by
// the broker.
package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// AgentFile is the name of an agent file.
const AgentFile = "torno.toml"

// ParseAgent reads an agent file; file is its name in errors, which are *Errors. Nothing in it is
// trusted yet: whether it may say what it says is the broker's to judge.
func ParseAgent(file string, b []byte) (control.AgentPolicy, error) {
	t, err := open(file, b)
	if err != nil {
		return control.AgentPolicy{}, err
	}
	p := control.AgentPolicy{Name: t.text("name")}
	if !t.has("name") {
		t.fail(nil, `name is missing; write name = "AGENT"`)
	} else if !control.ValidAgent(p.Name) {
		t.fail(t.at("name"), "name is %q; an agent's name has %s", p.Name, control.AgentGrammar)
	}
	p.Secrets = readSecrets(t)
	p.Secret = readAssertions(t.table("secret"), p.Secrets)
	workload := t.table("workload")
	p.Workload.User, _ = workload.choice("user", protocol.UserAgent, protocol.UserRoot)
	workload.done()
	p.Egress = readEgress(t.table("egress"))
	p.Limits = readAgentLimits(t.table("limits"))
	t.done()
	if err := newErrors(file, t.doc.problems); err != nil {
		return control.AgentPolicy{}, err
	}
	return p, nil
}

// CheckName reports, as *Errors, an agent file that speaks of another agent than the one that is run: a
// cloned repository does not choose whose secrets it gets.
func CheckName(file string, b []byte, p control.AgentPolicy, agent string) error {
	if p.Name == agent {
		return nil
	}
	lines, _ := scan(string(b))
	return newErrors(file, []Problem{{
		Line:    lines[pathKey([]string{"name"})],
		Message: fmt.Sprintf("name is %q, but --agent is %q; they must be equal", p.Name, agent),
	}})
}

// FindAgentFile reads the agent file in dir, if there is one: ok is false and err nil if not. Parent
// directories are not searched.
func FindAgentFile(dir string) (path string, b []byte, ok bool, err error) {
	path = filepath.Join(dir, AgentFile)
	b, err = readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil, false, nil
	}
	if err != nil {
		return "", nil, false, err
	}
	return path, b, true, nil
}

// readFile reads a regular file of at most MaxFile bytes. A FIFO in a hostile directory must not make
// it wait, nor a device make it read without end.
func readFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("reading %q: not a regular file", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err != nil {
		return nil, err
	}
	if len(b) > MaxFile {
		return nil, fmt.Errorf("reading %q: larger than %d bytes", path, MaxFile)
	}
	return b, nil
}

func readSecrets(t *table) []string {
	var keys []string
	t.eachText("secrets", func(at []string, key string) {
		switch {
		case !control.ValidKey(key):
			t.fail(at, "secrets: %q is no secret's name; those have %s", key, control.KeyGrammar)
		case slices.Contains(keys, key):
			t.fail(at, "secrets: %q is there twice", key)
		}
		keys = append(keys, key)
	})
	return keys
}

func readAssertions(t *table, declared []string) map[string]control.Assertion {
	var out map[string]control.Assertion
	for _, key := range t.keys() {
		if !slices.Contains(declared, key) {
			t.fail(t.at(key), "[%s] is not in secrets; add %q there", dotted(t.at(key)), key)
		}
		if out == nil {
			out = map[string]control.Assertion{}
		}
		out[key] = readAssertion(t.table(key))
	}
	return out
}

func readAssertion(t *table) control.Assertion {
	a := control.Assertion{Placeholder: t.truth("placeholder"), Hosts: t.texts("hosts"), Headers: t.texts("headers")}
	for _, key := range []string{"hosts", "headers"} {
		if list, ok := t.tree[key].([]any); ok && len(list) == 0 {
			t.fail(t.at(key), "%s is empty; leave it out to keep what is sealed", dotted(t.at(key)))
		}
	}
	if s, ok := t.choice("expose", "env", "none"); ok {
		e := control.Expose(s)
		if s == "none" {
			e = control.ExposeNone
		}
		a.Expose = &e
	}
	rotation, _ := t.choice("rotation", string(control.RotationPin), string(control.RotationFollow))
	a.Rotation = control.Rotation(rotation)
	t.done()
	return a
}

func readEgress(t *table) control.Egress {
	e := control.Egress{Allow: t.texts("allow"), Deny: t.texts("deny"), Ask: t.texts("ask"), Tunnel: t.texts("tunnel")}
	e.Default, _ = t.choice("default", "deny", "allow")
	t.done()
	return e
}
