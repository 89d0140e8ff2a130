package credential

import (
	"encoding/base64"
	"os"
	"regexp"
	"strings"
	"testing"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// staticRow is a row of the first table of docs/schemes.md: a scheme, what goes upstream, the command.
var staticRow = regexp.MustCompile("(?m)^\\| ([a-z]+)[^|]*\\| (`[a-z:-]+: [^|]*) \\| `torno secrets set my-agent ([A-Z_]+)=@secret --host [a-z.]+([^`]*)` \\|$")

// TestSchemesPage holds what docs/schemes.md says of each scheme to what is sent.
func TestSchemesPage(t *testing.T) {
	page, err := os.ReadFile("../../../docs/schemes.md")
	if err != nil {
		t.Fatal(err)
	}
	own := []protocol.Field{
		{Name: "authorization", Value: "Basic " + base64.StdEncoding.EncodeToString([]byte("own-user:own"))}, {Name: "cookie", Value: "a=1; sid=own"},
	}
	requests := map[string][]string{
		"query": {"/v1"}, "path": {"/bot/send"}, "path, at its end": {"/services/own"}, "git": {"/api/v1", "/a/b.git/info/refs"},
	}
	rows := staticRow.FindAllStringSubmatch(string(page), -1)
	seen := map[string]bool{}
	for _, row := range rows {
		scheme, key := row[1], row[3]
		seen[scheme] = true
		in := control.Injector{Scheme: scheme}
		if _, as, ok := strings.Cut(row[4], "--as "); ok {
			in, err = control.ParseScheme(as)
		} else if _, header, ok := strings.Cut(row[4], "--header '"); ok {
			var f control.FieldTemplate
			f, err = control.ParseHeader(key, strings.TrimSuffix(header, "'"))
			in.Fields = []control.FieldTemplate{f}
		}
		if err != nil || in.Scheme != scheme {
			t.Errorf("%s: %+v, %v", row[0], in, err)
			continue
		}
		paths := requests[strings.TrimSpace(strings.Split(row[0], "|")[1])]
		if paths == nil {
			paths = []string{"/"}
		}
		injector, err := NewInjector(control.Meta{Name: key, Inject: in})
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range regexp.MustCompile("`([^`]*)`").FindAllStringSubmatch(row[2], -1) {
			got, err := injector.Apply(secret.New([]byte("VALUE")), get(paths[i], own...))
			if lines := sent(t, got, err); len(lines) != 1 || lines[0] != coded(want[1]) {
				t.Errorf("%s: sends %q, the page says %q", scheme, lines, coded(want[1]))
			}
		}
	}
	for _, scheme := range []string{"bearer", "header", "basic", "git", "query", "path", "cookie"} {
		if !seen[scheme] {
			t.Errorf("the page has no row of %s among %d", scheme, len(rows))
		}
	}
}

// coded does what the page says as base64(…).
func coded(s string) string {
	before, plain, ok := strings.Cut(s, "base64(")
	if !ok {
		return s
	}
	return before + base64.StdEncoding.EncodeToString([]byte(strings.TrimSuffix(plain, ")")))
}
