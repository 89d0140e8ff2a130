package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"torno.internal/host/internal/config"
	"torno.internal/protocol/control"
)

func newInitCommand() *cobra.Command {
	var agent string
	cmd := &cobra.Command{
		Use:   "init [KEY…]",
		Short: "Write a commented torno.toml for the working directory",
		Long: `Write a commented torno.toml for the working directory.

It names an agent, by default after the directory, and declares the secrets that
are named, or else those that the agent has. A file that is there is not
touched.`,
		Example: "  torno init ANTHROPIC_API_KEY GITHUB_TOKEN\n  torno init --agent my-agent",
		Args:    rangeArgs(0, -1),
		RunE: func(cmd *cobra.Command, keys []string) error {
			if agent == "" {
				agent = agentFromDir()
			}
			if !control.ValidAgent(agent) {
				return usageError{&hintError{fmt.Errorf("%q is not an agent's name", agent), "--agent NAME; a name is " + control.AgentGrammar}}
			}
			presets, err := presetsFor(cmd, agent, keys)
			if err != nil {
				return err
			}
			f, err := os.OpenFile(config.AgentFile, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
			if errors.Is(err, fs.ErrExist) {
				return &hintError{fmt.Errorf("%s is there already", config.AgentFile), "edit it, then: torno trust"}
			}
			if err != nil {
				return err
			}
			_, err = f.Write(config.Template(agent, presets...))
			if err := errors.Join(err, f.Close()); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s written for agent %s; look at it, then: torno trust\n", config.AgentFile, agent)
			return nil
		},
	}
	cmd.Flags().StringVar(&agent, "agent", "", "the agent's name (default: after the directory)")
	return cmd
}

var notInAgent = regexp.MustCompile(`[^a-z0-9-]+`)

// agentFromDir makes an agent's name of the working directory's.
func agentFromDir() string {
	dir, err := os.Getwd()
	if err != nil {
		return ""
	}
	name := strings.Trim(notInAgent.ReplaceAllString(strings.ToLower(filepath.Base(dir)), "-"), "-")
	return name[:min(len(name), control.MaxAgent)]
}

// presetsFor returns a preset for each key, or for each secret of the agent if none is named. A key that
// no preset knows gets one that only carries its name.
func presetsFor(cmd *cobra.Command, agent string, keys []string) ([]control.Preset, error) {
	c, err := ensure(cmd.Context())
	if err != nil {
		return nil, err
	}
	if len(keys) == 0 {
		var infos []control.SecretInfo
		if err := c.do(cmd.Context(), "GET", control.PathSecrets+"?"+url.Values{"agent": {agent}}.Encode(), nil, &infos); err != nil {
			return nil, err
		}
		for _, i := range infos {
			keys = append(keys, i.Name)
		}
	}
	var presets []control.Preset
	for _, key := range keys {
		if !control.ValidKey(key) {
			return nil, usageError{&hintError{fmt.Errorf("%q is not a secret's name", key), "a name is " + control.KeyGrammar}}
		}
		var found []control.Preset
		if err := c.do(cmd.Context(), "GET", control.PathPresets+"?"+url.Values{"name": {key}}.Encode(), nil, &found); err != nil {
			return nil, err
		}
		p := control.Preset{}
		if len(found) > 0 {
			p = found[0]
		}
		p.Keys = []string{key}
		presets = append(presets, p)
	}
	return presets, nil
}
