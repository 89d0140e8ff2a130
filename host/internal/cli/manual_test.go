package cli

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"torno.internal/host/internal/config"
	"torno.internal/host/internal/manual"
)

// pages writes the manual and returns where, and what each page holds as it is read.
func pages(t *testing.T) (dir string, text map[string]string) {
	t.Helper()
	dir = t.TempDir()
	if r := torno(t, "", "manual", "--date", "2025-11-28", dir); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	text = map[string]string{}
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		text[f.Name()] = strings.NewReplacer(`\-`, "-", `\(aq`, "'").Replace(string(b))
	}
	return dir, text
}

// TestManual holds the pages in step with the commands: each command and each of its options is in one, with examples and
// the rest of what a page has.
func TestManual(t *testing.T) {
	_, text := pages(t)
	n := 0
	var visit func(page string, c *cobra.Command)
	visit = func(page string, c *cobra.Command) {
		if c.Hidden || c.IsAdditionalHelpTopicCommand() {
			return
		}
		n++
		if !strings.Contains(text[page], c.CommandPath()) {
			t.Errorf("%s lacks %s", page, c.CommandPath())
		}
		c.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden && f.Name != "help" && !strings.Contains(text[page], "--"+f.Name) {
				t.Errorf("%s lacks --%s of %s", page, f.Name, c.CommandPath())
			}
		})
		for _, sub := range c.Commands() {
			visit(page, sub)
		}
	}
	for _, c := range newRoot("test").Commands() {
		if c.Hidden || c.IsAdditionalHelpTopicCommand() {
			continue
		}
		page := "torno-" + c.Name() + ".1"
		visit(page, c)
		if !strings.Contains(text["torno.1"], page[:len(page)-2]+"(1)") {
			t.Errorf("torno(1) does not lead to %s", page)
		}
		for _, section := range []string{"SYNOPSIS", "EXAMPLES", "ENVIRONMENT", "FILES", "EXIT STATUS"} {
			if !strings.Contains(text[page], `.SH "`+section+`"`) {
				t.Errorf("%s lacks %s", page, section)
			}
		}
	}
	if n < 50 {
		t.Errorf("only %d commands", n)
	}
	for _, want := range []string{"torno.toml.5", "broker.toml.5", "torno-guest.8"} {
		if text[want] == "" {
			t.Errorf("no %s", want)
		}
	}
	if r := torno(t, "", "manual", "--date", "today", t.TempDir()); r.code != exitUsage {
		t.Errorf("a date that is none: %+v", r)
	}
}

// TestManualWarnings has both formatters read every page.
func TestManualWarnings(t *testing.T) {
	dir, text := pages(t)
	bad := filepath.Join(t.TempDir(), "bad.1")
	if err := os.WriteFile(bad, []byte(".TH X 1 2025-11-28\n.SH NAME\nx\n.nonsense\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	formatters := map[string]func(path string) (string, error){
		"mandoc": func(path string) (string, error) { // try: apt-get install mandoc
			out, err := exec.Command("mandoc", "-Tlint", "-W", "warning", path).CombinedOutput()
			return string(out), err
		},
		"man": func(path string) (string, error) { // try: apt-get install man-db
			cmd := exec.Command("man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", path)
			var warnings bytes.Buffer
			cmd.Env, cmd.Stderr = append(os.Environ(), "MANROFFSEQ=", "MANWIDTH=80", "LC_ALL=C.UTF-8"), &warnings
			err := cmd.Run()
			return warnings.String(), err
		},
	}
	for name, format := range formatters {
		if out, err := format(bad); err == nil && out == "" {
			t.Errorf("%s finds nothing in a bad page", name)
		}
		for page := range text {
			if out, err := format(filepath.Join(dir, page)); err != nil || out != "" {
				t.Errorf("%s %s: %v\n%s", name, page, err, out)
			}
		}
	}
}

// The examples of the topics are files that torno reads; each is what "torno help" prints.
func TestTopics(t *testing.T) {
	example := regexp.MustCompile(`(?s)\nEXAMPLES\n(.*?)\n[A-Z ]+\n`)
	for _, topic := range manual.Topics() {
		r := torno(t, "", "help", topic.Name)
		if r.code != 0 || !strings.Contains(r.out, topic.Text) {
			t.Errorf("torno help %s: %+v", topic.Name, r)
		}
		m := example.FindStringSubmatch(topic.Text)
		if m == nil {
			t.Errorf("%s has no examples", topic.Name)
			continue
		}
		var err error
		switch topic.Name {
		case "torno.toml":
			_, err = config.ParseAgent(topic.Name, []byte(m[1]))
		case "broker.toml":
			_, err = config.ParseBroker(topic.Name, []byte(m[1]))
		}
		if err != nil {
			t.Errorf("%s: %v", topic.Name, err)
		}
	}
}
