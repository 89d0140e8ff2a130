package cli

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// A source is where a value comes from.
type source int

const (
	sourceArgument source = iota
	sourcePrompt
	sourceInput
	sourceFile
	sourceEnvFile
	sourceDesk   // torno tui
	sourcePlugin // nowhere here: a plugin has it
)

func (s source) String() string {
	return [...]string{"argument", "prompt", "standard input", "file", "env file", "desk", "plugin"}[s]
}

// An entry is one secret that is being set.
type entry struct {
	key      string
	source   source
	file     string
	value    secret.Value
	fetched  bool // value is there
	meta     control.Meta
	prefixes []string // public prefixes of real values, by the preset
	named    bool     // on the command line, and not in a .env file alone
	kept     bool     // it goes where the version before went

	ifVersion int // that it must be at; -1: any
}

// collect makes an entry of each argument, or of what the .env file holds, lets describe say what it is and reads its
// value. The caller wipes them (wipeEntries); beside an error there are none.
func collect(cmd *cobra.Command, agent string, args []string, s *setting, describe func(*entry) error) (entries []*entry, err error) {
	defer func() {
		if err != nil {
			wipeEntries(entries)
			entries = nil
		}
	}()
	if entries, err = s.entries(cmd, args); err != nil {
		return entries, err
	}
	if err := s.elsewhere(entries); err != nil {
		return entries, err
	}
	if err := describeAll(cmd, agent, entries, s, describe); err != nil {
		return entries, err
	}
	for _, e := range entries {
		if err := e.read(cmd); err != nil {
			return entries, err
		}
	}
	return entries, nil
}

// entries parses the arguments, or the .env file. Beside an error it returns what is to be wiped.
func (s *setting) entries(cmd *cobra.Command, args []string) (entries []*entry, err error) {
	if s.envFile != "" {
		return s.readEnvFile(cmd, args)
	}
	for _, arg := range args {
		e, err := parseEntry(arg)
		if err != nil {
			return entries, err
		}
		entries = append(entries, e)
	}
	return entries, nil
}

func wipeEntries(entries []*entry) {
	for _, e := range entries {
		e.value.Wipe()
	}
}

// parseEntry reads KEY=VALUE, KEY, KEY=- or KEY=@FILE.
func parseEntry(arg string) (*entry, error) {
	key, value, assigned := strings.Cut(arg, "=")
	if !control.ValidKey(key) {
		return nil, usageError{&hintError{fmt.Errorf("%q is not a secret's name", key), "a name is " + control.KeyGrammar}}
	}
	e := &entry{key: key, named: true, ifVersion: -1}
	switch {
	case !assigned:
		e.source = sourcePrompt
	case value == "-":
		e.source = sourceInput
	case strings.HasPrefix(value, "@"):
		e.source, e.file = sourceFile, value[1:]
	case value == "":
		return nil, usageError{fmt.Errorf("%s: the value is empty", key)}
	default:
		e.value = secret.New([]byte(value))
	}
	return e, nil
}

// shown is the argument as it may be repeated: without the value.
func (e *entry) shown(s *setting) string {
	switch e.source {
	case sourceEnvFile:
		return "--from-env-file " + s.envFile + " " + e.key
	case sourceInput:
		return e.key + "=-"
	case sourceFile:
		return e.key + "=@" + e.file
	case sourcePrompt:
		return e.key
	case sourcePlugin:
		return e.key + " --source " + s.source
	}
	return e.key + "=…"
}

// fetch reads the value from where it comes from, once.
func (e *entry) fetch(cmd *cobra.Command) error {
	if e.fetched {
		return nil
	}
	e.fetched = true
	var err error
	switch e.source {
	case sourcePrompt:
		e.value, err = promptTwice(cmd, e.key)
	case sourceInput:
		e.value, err = readValue(cmd.InOrStdin())
	case sourceFile:
		var f *os.File
		if f, err = os.Open(e.file); err == nil {
			e.value, err = readValue(f)
			f.Close()
		}
	}
	return err
}

// read reads the value from where it comes from and checks it.
func (e *entry) read(cmd *cobra.Command) error {
	if err := e.fetch(cmd); err != nil {
		return fmt.Errorf("%s: %w", e.key, err)
	}
	if err := e.unlock(cmd); err != nil {
		return fmt.Errorf("%s: %w", e.key, err)
	}
	return e.value.Use(func(v []byte) error {
		e.meta.Weak = e.meta.Source == "" && e.meta.IsWeak(v, e.prefixes)
		if err := control.CheckSealed(e.meta, v); err != nil {
			return fmt.Errorf("%s: %w", e.key, err)
		}
		return nil
	})
}

// readValue reads a value to the end of r, without a final newline.
func readValue(r io.Reader) (secret.Value, error) {
	b, err := io.ReadAll(io.LimitReader(r, control.MaxValue+3))
	if err != nil {
		secret.Wipe(b)
		return secret.Value{}, err
	}
	v := bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
	return secret.New(v), nil
}
