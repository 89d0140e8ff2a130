package config

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"torno.internal/protocol/control"
)

const pluginSum = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func TestPlugins(t *testing.T) {
	c, err := ParseBroker("/etc/torno/broker.toml", []byte(`
[plugins.vault]
kind = "source"
path = "/usr/libexec/torno/torno-plugin-vault"
sha256 = "`+pluginSum+`"
network = true
user = "torno-vault"
paths = ["/usr/share/zoneinfo"]
writable = ["/var/lib/vault"]
timeout_seconds = 20
refresh_seconds = 60
memory_mib = 256

[plugins.vault.env]
TZ = "UTC"

[plugins.vault.files]
secret_id = "vault/secret-id"
ca = "/etc/ssl/vault.pem"

[plugins.vault.config]
address = "https://vault.example.org:8200"
retries = 3
paths = [["a"], ["b"]]
`))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]control.Plugin{"vault": {
		Kind: control.PluginSource, Path: "/usr/libexec/torno/torno-plugin-vault", SHA256: pluginSum, Network: true, User: "torno-vault",
		Paths: []string{"/usr/share/zoneinfo"}, Writable: []string{"/var/lib/vault"}, TimeoutSeconds: 20, RefreshSeconds: 60, MemoryMiB: 256,
		Env:    map[string]string{"TZ": "UTC"},
		Files:  map[string]string{"secret_id": "/etc/torno/vault/secret-id", "ca": "/etc/ssl/vault.pem"},
		Config: json.RawMessage(`{"address":"https://vault.example.org:8200","paths":[["a"],["b"]],"retries":3}`),
	}}
	if diff := cmp.Diff(want, c.Plugins); diff != "" {
		t.Error(diff)
	}
}

func TestPluginProblems(t *testing.T) {
	good := "[plugins.p]\nkind = \"source\"\npath = \"/p\"\nsha256 = \"" + pluginSum + "\"\n"
	if _, err := ParseBroker("broker.toml", []byte(good)); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		strings.Replace(good, "plugins.p", "plugins.P", 1): "a plugin's name has",
		strings.Replace(good, `"source"`, `"sauce"`, 1):    "not one of",
		strings.Replace(good, `kind = "source"`, "", 1):    "kind is",
		strings.Replace(good, `"/p"`, `"p"`, 1):            "not absolute",
		strings.Replace(good, `"/p"`, `"/a/../p"`, 1):      "not absolute",
		strings.Replace(good, pluginSum, pluginSum[1:], 1): "64 hexadecimal digits",
		good + "paths = [\"/\"]\n":                         "is everything",
		good + "writable = [\"x\"]\n":                      "not an absolute path",
		good + "network = \"yes\"\n":                       "must be true or false",
		good + "netwrok = true\n":                          "did you mean",
		good + "config = 1\n":                              "must be a table",
		good + "[plugins.p.env]\nA = 1\n":                  "must be a string",
		good + "[plugins.p.config]\nn = nan\n":             "JSON",
		good + "memory_mib = 0\n":                          "not from 1",
	} {
		if _, err := ParseBroker("broker.toml", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q for\n%s", err, want, text)
		}
	}
}
