package config

import (
	"encoding/hex"
	"encoding/json"
	"path/filepath"

	"torno.internal/protocol/control"
)

// readPlugins reads the programs that the broker may start.
func readPlugins(t *table, dir string) map[string]control.Plugin {
	var out map[string]control.Plugin
	names := t.keys()
	if len(names) > control.MaxPlugins {
		t.fail(t.path, "%d plugins, at most %d fit", len(names), control.MaxPlugins)
		return nil
	}
	for _, name := range names {
		if !control.ValidPlugin(name) {
			t.fail(t.at(name), "[%s]: a plugin's name has %s", dotted(t.at(name)), control.PluginGrammar)
		}
		if out == nil {
			out = map[string]control.Plugin{}
		}
		out[name] = readPlugin(t.table(name), dir)
	}
	return out
}

func readPlugin(t *table, dir string) control.Plugin {
	p := control.Plugin{
		Path: t.text("path"), SHA256: t.text("sha256"), Network: t.truth("network"), User: t.text("user"),
		TimeoutSeconds: t.count("timeout_seconds"), RefreshSeconds: t.count("refresh_seconds"), MemoryMiB: t.count("memory_mib"),
		Paths: readPaths(t, "paths"), Writable: readPaths(t, "writable"),
	}
	p.Kind, _ = t.choice("kind", control.PluginSource, control.PluginSigner)
	if !t.has("kind") {
		t.fail(t.at("kind"), "%s: kind is %q or %q", dotted(t.path), control.PluginSource, control.PluginSigner)
	}
	if !filepath.IsAbs(p.Path) || filepath.Clean(p.Path) != p.Path {
		t.fail(t.at("path"), "%s: path %q is not absolute and in its normal form", dotted(t.path), p.Path)
	}
	if sum, err := hex.DecodeString(p.SHA256); err != nil || len(sum) != 32 {
		t.fail(t.at("sha256"), "%s: sha256 is 64 hexadecimal digits; torno plugin check %s prints them", dotted(t.path), p.Path)
	}
	p.Env = readWords(t.table("env"))
	for name, path := range readWords(t.table("files")) {
		if p.Files == nil {
			p.Files = map[string]string{}
		}
		p.Files[name] = resolve(dir, path)
	}
	p.Config = readObject(t, "config")
	t.done()
	return p
}

// readPaths reads paths of the host that a plugin is given.
func readPaths(t *table, key string) []string {
	var out []string
	t.eachText(key, func(at []string, path string) {
		if !filepath.IsAbs(path) || filepath.Clean(path) != path || path == "/" {
			t.fail(at, "%s: %q is not an absolute path in its normal form, or is everything", dotted(t.at(key)), path)
		}
		out = append(out, path)
	})
	return out
}

// readWords reads a table of strings.
func readWords(t *table) map[string]string {
	var out map[string]string
	for _, key := range t.keys() {
		if out == nil {
			out = map[string]string{}
		}
		out[key] = t.text(key)
	}
	return out
}

// readObject reads a table that is somebody else's to understand, as JSON.
func readObject(t *table, key string) json.RawMessage {
	tree, ok := value[map[string]any](t, key, "a table")
	if !ok {
		return nil
	}
	b, err := json.Marshal(tree)
	if err != nil { // an infinite number, say
		t.fail(t.at(key), "%s can't be told in JSON", dotted(t.at(key)))
		return nil
	}
	return b
}
