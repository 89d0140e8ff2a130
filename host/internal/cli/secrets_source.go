package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// elsewhere makes the one entry that there may be one that is kept elsewhere, as --source says.
func (s *setting) elsewhere(entries []*entry) error {
	if s.source == "" {
		return nil
	}
	if s.envFile != "" || len(entries) != 1 || entries[0].source != sourcePrompt {
		return usageError{&hintError{errors.New("--source goes with exactly one KEY, without a value"), "torno secrets set AGENT KEY --source PLUGIN:REF --host HOST"}}
	}
	if _, _, err := control.ParseSource(s.source); err != nil {
		return usageError{fmt.Errorf("--source: %w", err)}
	}
	e := entries[0]
	e.source, e.value, e.fetched = sourcePlugin, secret.New([]byte(s.source)), true
	return nil
}

// follow has running sessions take what the source has newest, unless that is said otherwise.
func (e *entry) follow() {
	if e.source == sourcePlugin && e.meta.Rotation == "" && e.meta.Expose == control.ExposeNone {
		e.meta.Rotation = control.RotationFollow
	}
}

// completeSources completes the plugins that are there.
func completeSources(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	names, err := pluginNames(cmd)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	for i := range names {
		names[i] += ":"
	}
	return names, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
}

// fromWhere says where a secret is kept, if that is elsewhere.
func fromWhere(m control.Meta) string {
	if m.Source == "" {
		return ""
	}
	return ", from " + m.Source
}
