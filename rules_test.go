package torno_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "torno.internal/"

// A rule forbids every package under From to link any package under one of the Forbidden prefixes.
type rule struct {
	from      string
	forbidden []string
	why       string
}

// rules are the walls of the house. A package links what it imports, directly or not.
var rules = []rule{
	{"guest", []string{module + "broker", module + "host", module + "protocol/control", module + "protocol/seal", module + "protocol/secret"},
		"the guest can neither hold nor open a secret"},
	{"guest", []string{"net/http", "os/exec", "encoding/gob", "github.com/cloudflare/circl", "go.etcd.io/bbolt"},
		"the guest is small, and net/http's servers accept what ours refuse: none of them ever gets a connection"},
	{"protocol/bhttp", []string{module + "broker", module + "host", module + "guest", "net/http"},
		"the wire is the same on both sides and knows neither"},
	{"protocol/http1", []string{module + "broker", module + "host", module + "guest", "net/http"},
		"one strict parser serves both ends"},
	{"protocol/secret", []string{module + "protocol/"}, "the type that holds secrets depends on nothing of ours"},
	{"host/internal/run", []string{module + "broker"}, "the process that owns a guest never opens the store"},
	{"host/internal/namespace", []string{module + "broker"}, "the process that owns a guest never opens the store"},
	{"host/internal/vmm", []string{module + "broker"}, "the process that owns a VM never opens the store"},
	{"host/internal/vhostvsock", []string{module + "broker", module + "protocol"}, "the device carries bytes and knows neither store nor wire"},
	{"host/internal/vmconfig", []string{module + "broker", module + "protocol"}, "what other VMMs read is data, and knows neither store nor wire"},
	{"images", []string{module + "broker", module + "host", module + "guest", module + "protocol"}, "images are made of files, whoever uses them"},
	{"host/internal/workspace", []string{module + "broker"}, "taking back what a guest wrote needs no keys"},
	{"protocol/workspace", []string{module + "broker", module + "host", module + "guest", "net/http"},
		"the archive is the same on both sides and knows neither"},
	{"host/internal/config", []string{module + "broker"}, "reading a file needs no keys"},
	{"host/internal/project", []string{module + "broker"}, "looking at a project needs no keys"},
	{"host/internal/doctor", []string{module + "broker"}, "looking at a machine needs no keys"},
	{"protocol/dotenv", []string{module + "broker", module + "host", module + "guest", "net/http"}, "reading a file needs no keys"},
	{"tui", []string{module + "broker", module + "host", module + "guest", module + "images", module + "protocol/transport", module + "protocol/bhttp", "net/http"},
		"the desk asks whoever it is given, starts nothing, and knows neither store nor wire"},
	{"tui", []string{"github.com/atotto/clipboard", "charm.land/bubbles/v2/textinput", "charm.land/huh/v2"},
		"no value goes through a clipboard's programs, nor into a field that can show it"},
	{"broker/internal/detach", []string{module + "broker/internal/credential", module + "broker/internal/mint", module + "broker/internal/store", module + "broker/internal/upstream"},
		"/v1/sign hands out proofs alone: what is put into requests can't be named there"},
	{"plugins", []string{module + "host", module + "guest", "go.etcd.io/bbolt", module + "broker/internal/store"},
		"a plugin knows the protocol, and nothing of the broker"},
	{"broker", []string{module + "host", module + "guest", "github.com/BurntSushi/toml", "github.com/spf13/cobra"},
		"the broker is a library that parses no files and no flags"},
}

func TestImports(t *testing.T) {
	for _, r := range rules {
		deps := linked(t, "./"+r.from+"/...")
		for _, f := range r.forbidden {
			for _, d := range deps {
				if d == f || strings.HasPrefix(d, strings.TrimSuffix(f, "/")+"/") && !underSelf(r, d) {
					t.Errorf("%s links %s: %s", r.from, d, r.why)
				}
			}
		}
	}
}

// underSelf reports whether d is the rule's own package, which a wider prefix may cover.
func underSelf(r rule, d string) bool {
	return d == module+r.from || strings.HasPrefix(d, module+r.from+"/")
}

// TestBrokerImportedByCLIAlone holds the one door to the broker: host/internal/cli.
func TestBrokerImportedByCLIAlone(t *testing.T) {
	out := golist(t, "-f", `{{.ImportPath}}{{range .Imports}} {{.}}{{end}}`, "./...")
	for _, line := range out {
		words := strings.Fields(line)
		from := strings.TrimPrefix(words[0], module)
		if strings.HasPrefix(from, "broker") || from == "host/internal/cli" {
			continue
		}
		for _, imported := range words[1:] {
			if imported == module+"broker/plugin" || strings.HasPrefix(imported, module+"broker/plugin/") { // is everybody's
				continue
			}
			if strings.HasPrefix(imported, module+"broker") {
				t.Errorf("%s imports %s: only host/internal/cli may", from, imported)
			}
		}
	}
}

// TestGuestDependencies keeps the guest's dependency list in review: growth shows as a diff of
// guest/deps.txt. Run with TORNO_UPDATE=1 to rewrite it.
func TestGuestDependencies(t *testing.T) {
	got := strings.Join(linked(t, "./guest"), "\n") + "\n"
	if os.Getenv("TORNO_UPDATE") != "" {
		if err := os.WriteFile("guest/deps.txt", []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("guest/deps.txt")
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the guest's dependencies changed (TORNO_UPDATE=1 go test . rewrites guest/deps.txt):\n%s",
			lineDiff(string(want), got))
	}
}

// TestGuestSize holds the guest, which every VM boots with, to guestSize.
func TestGuestSize(t *testing.T) {
	const guestSize = 9_000_000 // bytes
	binary := filepath.Join(t.TempDir(), "torno-guest")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", binary, "./guest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	info, err := os.Stat(binary)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > guestSize {
		t.Errorf("the guest has %d bytes, at most %d are wanted", info.Size(), guestSize)
	}
	t.Logf("%d bytes", info.Size())
}

// linked returns the packages that pattern links, without the standard library's internal ones.
func linked(t *testing.T, pattern string) []string {
	t.Helper()
	deps := golist(t, "-deps", pattern)
	deps = slices.DeleteFunc(deps, func(d string) bool {
		return strings.HasPrefix(d, "internal/") || strings.Contains(d, "/internal/") && !strings.HasPrefix(d, module) ||
			strings.HasPrefix(d, "vendor/")
	})
	slices.Sort(deps)
	return deps
}

func golist(t *testing.T, args ...string) []string {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list"}, args...)...)
	cmd.Stderr = os.Stderr
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // as the binaries are built
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %q: %v", args, err)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

func lineDiff(want, got string) string {
	var b strings.Builder
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for _, l := range w {
		if !slices.Contains(g, l) {
			b.WriteString("- " + l + "\n")
		}
	}
	for _, l := range g {
		if !slices.Contains(w, l) {
			b.WriteString("+ " + l + "\n")
		}
	}
	return b.String()
}

// decoders are the packages that read what somebody outside wrote, and what their fuzz tests must be called.
var decoders = map[string][]string{
	"protocol":                 {"FuzzParseAuthority", "FuzzReadPreface", "FuzzDecodeStrict"},
	"protocol/bhttp":           {"FuzzReadRequest", "FuzzReadResponse", "FuzzMessage"},
	"protocol/control":         {"FuzzParseTemplate", "FuzzParseFormula", "FuzzClaims", "FuzzDecodeAssociatedData", "FuzzDecodeSealed", "FuzzParseSource"},
	"protocol/http1":           {"FuzzReadRequest", "FuzzReadResponse"},
	"protocol/postgres":        {"FuzzReadStartup"},
	"protocol/seal":            {"FuzzOpen"},
	"protocol/transport":       {"FuzzParseAddr", "FuzzReadAnswer"},
	"protocol/websocket":       {"FuzzFrames"},
	"protocol/workspace":       {"FuzzReader", "FuzzHeader"},
	"broker/internal/audit":    {"FuzzDecode", "FuzzWriteRead"},
	"broker/internal/detach":   {"FuzzRead"},
	"broker/internal/decode":   {"FuzzReader"},
	"broker/internal/metadata": {"FuzzAnswer"},
	"broker/internal/keyring":  {"FuzzDecodeFile", "FuzzDecodeShare"},
	"broker/internal/postgres": {"FuzzReadStart", "FuzzLogin"},
	"broker/internal/policy":   {"FuzzParseRule", "FuzzReadings"},
	"broker/internal/redact":   {"FuzzMask"},
	"broker/internal/session":  {"FuzzDecodeRecord"},
	"broker/internal/sign":     {"FuzzSigV4", "FuzzChunks", "FuzzDigest", "FuzzHMAC", "FuzzAzure", "FuzzJWT"},
	"broker/internal/ssh":      {"FuzzWatch", "FuzzAgent", "FuzzLogin", "FuzzKnownHosts"},
	"broker/internal/store":    {"FuzzDecodeManifest", "FuzzDecodePage", "FuzzDecodeBackup"},
	"broker/internal/upstream": {"FuzzH2Response", "FuzzH2Section"},
	"guest/internal/front":     {"FuzzAuthority", "FuzzH2Head"},
	"guest/internal/boot":      {"FuzzDecodeState"},
	"guest/internal/names":     {"FuzzAnswer"},
	"guest/internal/workspace": {"FuzzNotes"},
	"host/internal/config":     {"FuzzParseAgent"},
	"protocol/dotenv":          {"FuzzParse"},
	"host/internal/project":    {"FuzzLook"},
	"host/internal/workspace":  {"FuzzApply"},
	"host/internal/vhostvsock": {"FuzzRing", "FuzzPacket", "FuzzMessage", "FuzzAsk"},

	"broker/internal/challenge": {"FuzzParse"},

	"broker/internal/pluginhost": {"FuzzHandshake"},
	"plugins/vault":              {"FuzzParse"},
}

// TestAttack22EveryDecoderFuzzed wants a fuzz test for every decoder, by the beginning of its name.
func TestAttack22EveryDecoderFuzzed(t *testing.T) {
	for dir, want := range decoders {
		out, err := exec.Command("sh", "-c", "cat "+dir+"/*_test.go").Output()
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range want {
			if !strings.Contains(string(out), "func "+name) {
				t.Errorf("%s has no %s", dir, name)
			}
		}
	}
}
