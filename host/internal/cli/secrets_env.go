package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"torno.internal/protocol/control"
	"torno.internal/protocol/dotenv"
	"torno.internal/protocol/secret"
)

// errNoPreset means that nothing says where what stands in a .env file may be sent.
var errNoPreset = errors.New("no preset knows it")

// readEnvFile makes an entry of each name in the .env file, or of each of keys. Beside an error it returns what is to be
// wiped.
func (s *setting) readEnvFile(cmd *cobra.Command, keys []string) ([]*entry, error) {
	for i, key := range keys {
		switch {
		case strings.Contains(key, "="):
			return nil, usageError{&hintError{errors.New("with --from-env-file a KEY has no value"), "set the others with a command of their own"}}
		case slices.Contains(keys[:i], key):
			return nil, usageError{fmt.Errorf("%q is named twice", key)}
		}
	}
	all, err := s.parseEnvFile(cmd)
	if err != nil {
		return nil, err
	}
	var entries []*entry
	for _, d := range all {
		named := slices.Contains(keys, d.Name)
		if len(keys) > 0 && !named {
			d.Value.Wipe()
			continue
		}
		entries = append(entries, &entry{key: d.Name, source: sourceEnvFile, value: d.Value, fetched: true, named: named, ifVersion: -1})
		if !control.ValidKey(d.Name) && err == nil { // what stands there may be part of a value
			err = &hintError{fmt.Errorf("%s:%d: the name there is no secret's", s.envFile, d.Line), "a name is " + control.KeyGrammar + "; or name the KEYs that are wanted"}
		}
	}
	switch {
	case err != nil:
		return entries, err
	case len(all) == 0:
		return nil, errors.New(s.envFile + ": nothing is set there")
	case len(keys) > len(entries):
		return entries, s.missing(keys, entries)
	}
	return entries, s.checkCount(len(entries))
}

// missing says which of keys the file does not hold.
func (s *setting) missing(keys []string, entries []*entry) error {
	var missing []string
	for _, key := range keys {
		if !slices.ContainsFunc(entries, func(e *entry) bool { return e.key == key }) {
			missing = append(missing, key)
		}
	}
	return fmt.Errorf("%s does not hold %s", s.envFile, strings.Join(missing, ", "))
}

// parseEnvFile reads the file, or standard input for "-".
func (s *setting) parseEnvFile(cmd *cobra.Command) ([]dotenv.Entry, error) {
	in := cmd.InOrStdin()
	if s.envFile != "-" {
		f, err := os.Open(s.envFile)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	b := make([]byte, 0, dotenv.MaxFile+1) // so that none of it is left behind in a smaller one
	defer func() { secret.Wipe(b) }()
	n, err := io.ReadFull(in, b[:cap(b)])
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	all, err := dotenv.Parse(s.envFile, b[:n])
	var e *dotenv.Error
	if errors.As(err, &e) && e.Hint != "" {
		return nil, &hintError{err, e.Hint}
	}
	return all, err
}

// describeAll lets describe say what each entry is. What stands in a .env file and means nothing is named all at once.
func describeAll(cmd *cobra.Command, agent string, entries []*entry, s *setting, describe func(*entry) error) error {
	var known, unknown []string
	for _, e := range entries {
		switch err := describe(e); {
		case errors.Is(err, errNoPreset):
			unknown = append(unknown, e.key)
		case err != nil:
			return err
		default:
			known = append(known, e.key)
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	if len(known) == 0 {
		known = []string{"KEY"}
	}
	return usageError{&hintError{
		fmt.Errorf("%s holds what no preset knows: %s; nothing was set", s.envFile, strings.Join(unknown, ", ")),
		fmt.Sprintf("name the secrets: %s %s --from-env-file %s %s; one alone with --host HOST or --expose env", cmd.CommandPath(), agent, s.envFile, strings.Join(known, " ")),
	}}
}

// confirm shows what will be set, never a value, and asks unless yes is. What was shown is set, or nothing is: a version
// that somebody sets meanwhile is in the way.
func (s *setting) confirm(cmd *cobra.Command, c *client, entries []*entry, yes bool) error {
	rows := make([][]string, 0, len(entries))
	for _, e := range entries {
		if err := e.nextVersion(cmd.Context(), c); err != nil {
			return err
		}
		e.ifVersion = e.meta.Version - 1
		rows = append(rows, []string{e.key, e.change(), kindOf(e.meta), audienceOf(e.meta), e.reason()})
	}
	out := cmd.ErrOrStderr()
	fmt.Fprintf(out, "For agent %s, from %s:\n", entries[0].meta.Agent, escapeLines(s.envFile))
	if err := printTable(out, []string{"NAME", "CHANGE", "KIND", "GOES TO", "BY"}, rows); err != nil {
		return err
	}
	if yes {
		return nil
	}
	if !isTerminal(os.Stdin) {
		return &hintError{errors.New("no terminal to ask on; nothing was set"), "--yes sets them without asking"}
	}
	what := "these secrets"
	if len(entries) == 1 {
		what = "this secret"
	}
	ok, err := agreed(cmd, "Set "+what+"? [y/N] ")
	if err == nil && !ok {
		err = errors.New("nothing was set")
	}
	return err
}

// change says what setting the entry makes of what is there. Whether the value is the one that is there nobody can say.
func (e *entry) change() string {
	if e.meta.Version == 1 {
		return "new"
	}
	return fmt.Sprintf("new version %d", e.meta.Version)
}

// reason says what the entry is that by.
func (e *entry) reason() string {
	switch {
	case e.meta.Preset != "":
		return "preset " + e.meta.Preset
	case e.kept:
		return "version before"
	}
	return "custom"
}

// noteFile says that the values are still in the file.
func (s *setting) noteFile(cmd *cobra.Command) {
	if s.envFile != "" && s.envFile != "-" {
		fmt.Fprintf(cmd.ErrOrStderr(), "note: %s still holds the values, for whoever can read it\n", escapeLines(s.envFile))
	}
}

// completeKeys completes an agent and then its secrets, or the names in the .env file.
func (s *setting) completeKeys(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 || s.envFile == "" || s.envFile == "-" {
		return completeSecrets(cmd, args, prefix)
	}
	all, err := s.parseEnvFile(cmd)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, d := range all {
		d.Value.Wipe()
		if control.ValidKey(d.Name) && !slices.Contains(args[1:], d.Name) {
			names = append(names, d.Name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
