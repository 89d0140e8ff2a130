package plugin_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"torno.internal/broker/plugin"
	"torno.internal/broker/plugin/plugintest"
)

// example is a signer in a module of its own.
const example = "../../examples/plugin-signer"

// build builds the program in dir.
func build(t *testing.T, dir string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "plugin")
	run(t, dir, "go", "build", "-o", program, ".")
	return program
}

func run(t *testing.T, dir string, args ...string) {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false -mod=mod")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", args, err, out)
	}
}

// TestExampleSigner builds the example as somebody else would, and tests the program.
func TestExampleSigner(t *testing.T) {
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for name, key := range map[string]crypto.Signer{"edwards": edwards, "curve": curve} {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	}
	plugintest.SignerProgram(t, build(t, example), plugintest.SignerCase{
		Config: plugin.Config{Files: files}, Missing: "nothing",
		Keys: []plugintest.Key{
			{Name: "edwards", Algorithm: plugin.Ed25519, Public: edwards.Public()},
			{Name: "curve", Algorithm: plugin.ECDSAP256, Public: curve.Public()},
		},
	})
}

// TestDocs builds the program that docs/plugins.md shows, in a module as it shows it, runs it, and runs its test.
func TestDocs(t *testing.T) {
	page, err := os.ReadFile("../../docs/plugins.md")
	if err != nil {
		t.Fatal(err)
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	code := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(string(page), -1)
	module := regexp.MustCompile("(?s)```\n(module .*?)```").FindStringSubmatch(string(page))
	if len(code) != 2 || module == nil {
		t.Fatalf("%d blocks of Go, module %v", len(code), module != nil)
	}
	if lines := strings.Count(code[0][1], "\n"); lines > 22 {
		t.Errorf("a whole plugin has %d lines", lines)
	}
	dir := t.TempDir()
	sums, err := os.ReadFile(filepath.Join(example, "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"main.go": code[0][1], "go.sum": string(sums), "go.mod": strings.Replace(module[1], "../torno", root, 1),
		"main_test.go": "package main\n\nimport (\n\t\"testing\"\n\n\t\"torno.internal/broker/plugin/plugintest\"\n)\n\n" + code[1][1],
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	run(t, dir, "go", "mod", "tidy")
	plugintest.SourceProgram(t, build(t, dir), plugintest.SourceCase{
		Have: map[string]string{"greeting": "hello-from-the-plugin"}, Missing: "nothing", Versions: true,
	})
	run(t, dir, "go", "test", "-count=1", ".")
}
