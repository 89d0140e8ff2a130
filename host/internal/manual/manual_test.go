package manual

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
)

func TestRoff(t *testing.T) {
	p := Page{Name: "torno-x", Section: 1, Summary: "does it"}
	p.add("SYNOPSIS", block{kind: usage, tag: "torno x", text: "[options]"}, block{kind: usage, tag: "torno x all"})
	p.add("DESCRIPTION", blocks(".so /etc/passwd\n'ignore \\n(.x a-b…\n\n  .ig\n\n  two\n\nkey = \"x\"\n    What it\n    means.\nother\n    More.")...)
	var b strings.Builder
	if err := p.Roff(&b, "2025-11-28", "1.0"); err != nil {
		t.Fatal(err)
	}
	want := `.TH "TORNO\-X" 1 2025-11-28 "torno 1.0" "torno"
.SH NAME
torno\-x \- does it
.SH "SYNOPSIS"
\fBtorno x\fR [options]
.br
\fBtorno x all\fR
.SH "DESCRIPTION"
\&.so /etc/passwd \(aqignore \en(.x a\-b\[u2026]
.PP
.RS 4
.EX
\&.ig
two
.EE
.RE
.TP
\fBkey = "x"\fR
What it means.
.TP
\fBother\fR
More.
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
}

// A command that is added, an option, or a command below one is in the pages without anything else being done.
func TestCommandsInStep(t *testing.T) {
	root := &cobra.Command{Use: "torno", Short: "Root", Long: "Root.\n\nExit status: 0 or 1."}
	group := &cobra.Command{Use: "group", Short: "Some"}
	leaf := &cobra.Command{Use: "leaf AGENT", Short: "One", Long: "Do one.\n\nExit status: 7 on Sundays.", Example: "  torno group leaf a", RunE: func(*cobra.Command, []string) error { return nil }}
	leaf.Flags().Int("count", 3, "how `many`")
	hidden := &cobra.Command{Use: "secret", Hidden: true, RunE: leaf.RunE}
	group.AddCommand(leaf)
	root.AddCommand(group, hidden)
	pages := map[string]string{}
	for _, p := range Commands(root) {
		var b strings.Builder
		if err := p.Roff(&b, "2025-11-28", "1"); err != nil {
			t.Fatal(err)
		}
		pages[p.File()] = b.String()
	}
	if pages["torno-secret.1"] != "" || !strings.Contains(pages["torno.1"], "0 or 1.") {
		t.Errorf("%v", pages)
	}
	for _, want := range []string{`\fBtorno group leaf\fR AGENT [options]`, "--count many", "how many (default 3)", "torno group leaf: 7 on Sundays.", "torno group leaf a\n", "0 done, 1 failed, 2 wrong usage."} {
		if !strings.Contains(strings.ReplaceAll(pages["torno-group.1"], `\-`, "-"), want) {
			t.Errorf("%q is not in\n%s", want, pages["torno-group.1"])
		}
	}
}

// sources returns the program text below directories, tests apart.
func sources(t *testing.T, dirs ...string) string {
	t.Helper()
	var all strings.Builder
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.Contains(path, "/testdata/") {
				return err
			}
			b, err := os.ReadFile(path)
			all.Write(b)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all.String()
}

// found returns what the group of a pattern matches, without repetition.
func found(text, pattern string) []string {
	var out []string
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
		out = append(out, m[1])
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Every variable that the program reads is in the pages.
func TestEnvironmentInStep(t *testing.T) {
	var named strings.Builder
	for _, p := range environment {
		named.WriteString(" " + p.name + " ")
	}
	read := found(sources(t, "../../../host", "../../../images", "../../../tui", "../../../broker"), `(?:Getenv|LookupEnv|takeEnv)\("([A-Z_]+)"`)
	if len(read) < 6 {
		t.Fatalf("only %q found", read)
	}
	for _, name := range read {
		if !strings.Contains(named.String(), name) {
			t.Errorf("%s is read, and in no page", name)
		}
	}
}

// Every key that a file may have, and every option of the guest, is in its page; and no other option is.
func TestTopicsInStep(t *testing.T) {
	topics := map[string]string{}
	for _, topic := range Topics() {
		topics[topic.Name] = topic.Text
	}
	both := sources(t, "../config")
	keys := found(both, `\.(?:text|truth|texts|count|rate|choice|eachText|tables|port)\("([a-z0-9_]+)"`)
	if len(keys) < 35 {
		t.Fatalf("only %q found", keys)
	}
	for _, key := range keys {
		if !regexp.MustCompile(`\b` + key + `\b`).MatchString(topics["torno.toml"] + topics["broker.toml"]) {
			t.Errorf("the key %s is in neither page", key)
		}
	}
	options := found(sources(t, "../../../guest"), `flags\.(?:String|Bool|Func)\("([a-z]+)"`)
	if described := found(topics["torno-guest"], `(?m)^-([a-z]+)`); !slices.Equal(options, described) {
		t.Errorf("the guest has %q, its page %q", options, described)
	}
	for _, topic := range Topics() {
		for line := range strings.Lines(topic.Text) {
			if len(line) > 82 {
				t.Errorf("%s: too long for a terminal: %s", topic.Name, line)
			}
		}
	}
}
