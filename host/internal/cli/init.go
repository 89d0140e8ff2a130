package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"torno.internal/host/internal/config"
	"torno.internal/host/internal/project"
	"torno.internal/protocol/control"
)

func newInitCommand() *cobra.Command {
	var p proposal
	var force, printOnly, asJSON bool
	cmd := &cobra.Command{
		Use:   "init [KEY…]",
		Short: "Write a commented torno.toml for the project here",
		Long: `Write a commented torno.toml for the project in the working directory, and say
which secrets are still to be set.

It names an agent, by default after the directory. It declares the secrets that
the agent has and those that the project needs, as far as can be seen: from the
names in .env files (never their values), from the packages in package.json,
pyproject.toml, requirements.txt and go.mod, from git's remotes, and from what
Claude Code, Codex, AWS's tools and container engines leave there. Each line
says where it comes from. What is doubtful stands there as a comment.

With KEYs it declares those alone. A file that is there is not touched, unless
with --force. --print and --json write no file.`,
		Example: "  torno init\n  torno init --print\n  torno init ANTHROPIC_API_KEY GITHUB_TOKEN --agent my-agent",
		Args:    rangeArgs(0, -1),
		RunE: func(cmd *cobra.Command, keys []string) error {
			if p.Agent == "" {
				p.Agent = agentFromDir()
			}
			if !control.ValidAgent(p.Agent) {
				return usageError{&hintError{fmt.Errorf("%q is not an agent's name", p.Agent), "--agent NAME; a name is " + control.AgentGrammar}}
			}
			if err := p.make(cmd.Context(), keys); err != nil {
				return err
			}
			switch {
			case asJSON:
				return printJSON(cmd.OutOrStdout(), p)
			case printOnly:
				_, err := fmt.Fprint(cmd.OutOrStdout(), p.File)
				return err
			}
			if err := writeAgentFile([]byte(p.File), force); err != nil {
				return err
			}
			p.say(cmd)
			return nil
		},
	}
	cmd.Flags().StringVar(&p.Agent, "agent", "", "the agent's name (default: after the directory)")
	cmd.Flags().BoolVar(&force, "force", false, "replace a torno.toml that is there")
	cmd.Flags().BoolVar(&printOnly, "print", false, "print the file and write none")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the file, its parts and why each is there as JSON, and write none")
	return cmd
}

// writeAgentFile writes torno.toml. One that is there is replaced as a whole, and only by force.
func writeAgentFile(b []byte, force bool) error {
	if force {
		f, err := os.CreateTemp(".", "."+config.AgentFile)
		if err != nil {
			return err
		}
		_, err = f.Write(b)
		if err = errors.Join(err, f.Chmod(0o644), f.Close()); err == nil {
			err = os.Rename(f.Name(), config.AgentFile)
		}
		if err != nil {
			os.Remove(f.Name())
		}
		return err
	}
	f, err := os.OpenFile(config.AgentFile, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return &hintError{fmt.Errorf("%s is there already", config.AgentFile), "edit it, then: torno trust; or replace it with --force"}
	}
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Close())
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

// A proposal is an agent file, and what led to it.
type proposal struct {
	Agent   string           `json:"agent"`
	Secrets []proposedSecret `json:"secrets"`
	Allow   []proposedRule   `json:"allow"`
	Notes   []string         `json:"notes,omitempty"`
	File    string           `json:"file"` // the text of torno.toml
}

// A proposedSecret is one that the file declares, or mentions in a comment.
type proposedSecret struct {
	Key         string `json:"key"`
	Declared    bool   `json:"declared"` // else it is mentioned in a comment
	Set         bool   `json:"set"`      // the agent has it
	Service     string `json:"service,omitempty"`
	Why         string `json:"why,omitempty"`
	Command     string `json:"command,omitempty"` // that sets it
	Exposed     bool   `json:"exposed,omitempty"` // becomes a variable that the agent can read
	placeholder bool
}

// A proposedRule is one of the list allow.
type proposedRule struct {
	Rule     string `json:"rule"`
	Declared bool   `json:"declared"`
	Why      string `json:"why"`
}

// make looks at the directory, or takes the keys that are named, and asks the broker what it knows of them.
func (p *proposal) make(ctx context.Context, named []string) error {
	c, err := ensure(ctx)
	if err != nil {
		return err
	}
	found, err := project.Look(".")
	if err != nil {
		return err
	}
	var infos []control.SecretInfo
	if err := c.do(ctx, "GET", control.PathSecrets+"?"+url.Values{"agent": {p.Agent}}.Encode(), nil, &infos); err != nil {
		return err
	}
	if len(named) > 0 {
		found.Keys = nil
		for _, key := range named {
			if !control.ValidKey(key) {
				return usageError{&hintError{fmt.Errorf("%q is not a secret's name", key), "a name is " + control.KeyGrammar}}
			}
			found.Keys = append(found.Keys, project.Key{Name: key})
		}
	} else {
		found.Keys = append(keysOf(infos), found.Keys...)
	}
	p.Secrets, p.Allow = []proposedSecret{}, []proposedRule{}
	for _, k := range found.Keys {
		if err := p.add(ctx, c, k, infos, len(named) > 0); err != nil {
			return err
		}
	}
	for _, r := range found.Rules {
		p.Allow = append(p.Allow, proposedRule{Rule: r.Text, Declared: !r.Ask, Why: r.Why})
	}
	p.Notes = found.Notes
	p.File = string(config.Template(p.draft()))
	return nil
}

// keysOf returns what the agent has as what a project needs.
func keysOf(infos []control.SecretInfo) []project.Key {
	var keys []project.Key
	for _, i := range infos {
		keys = append(keys, project.Key{Name: i.Name})
	}
	return keys
}

// add adds a secret, with what its preset says. One that is neither there nor known by a preset, nor named by a person, is only
// mentioned: nobody can say where it would go.
func (p *proposal) add(ctx context.Context, c *client, k project.Key, infos []control.SecretInfo, named bool) error {
	if i := slices.IndexFunc(p.Secrets, func(s proposedSecret) bool { return s.Key == k.Name }); i >= 0 {
		p.Secrets[i].Why = k.Why
		return nil
	}
	var presets []control.Preset
	if err := c.do(ctx, "GET", control.PathPresets+"?"+url.Values{"name": {k.Name}}.Encode(), nil, &presets); err != nil {
		return err
	}
	s := proposedSecret{Key: k.Name, Why: k.Why}
	i := slices.IndexFunc(infos, func(i control.SecretInfo) bool { return i.Name == k.Name })
	if s.Set = i >= 0; s.Set {
		s.Exposed = infos[i].Expose != control.ExposeNone
	}
	if len(presets) > 0 && (s.Set || k.Set == "") {
		s.Service, s.placeholder = presets[0].Service, presets[0].SDKNeedsKey && presets[0].Expose == control.ExposeNone
		s.Exposed = s.Exposed || !s.Set && presets[0].Expose != control.ExposeNone
	}
	s.Declared = s.Set || named || len(presets) > 0 && k.Set == ""
	if !s.Set {
		s.Command = "torno secrets set " + p.Agent + " " + setArguments(k, presets)
	}
	p.Secrets = append(p.Secrets, s)
	return nil
}

func setArguments(k project.Key, presets []control.Preset) string {
	switch {
	case k.Set != "":
		return k.Set
	case len(presets) > 0:
		return k.Name
	}
	return k.Name + " --host HOST"
}

// draft returns the proposal as the file's writer takes it.
func (p *proposal) draft() config.Draft {
	d := config.Draft{Agent: p.Agent, Notes: p.Notes}
	for _, s := range p.Secrets {
		why := slices.DeleteFunc([]string{s.Service, s.Why}, func(w string) bool { return w == "" })
		if s.Exposed {
			why = append(why, "the agent can read this one")
		}
		if !s.Set {
			why = append(why, "not set: "+s.Command)
		}
		d.Secrets = append(d.Secrets, config.DraftSecret{Key: s.Key, Why: strings.Join(why, "; "), Placeholder: s.placeholder, Off: !s.Declared})
	}
	for _, r := range p.Allow {
		d.Allow = append(d.Allow, config.DraftRule{Rule: r.Rule, Why: r.Why, Off: !r.Declared})
	}
	return d
}

// say tells what was written and what is to be done.
func (p *proposal) say(cmd *cobra.Command) {
	out := cmd.OutOrStdout()
	fmt.Fprintf(out, "%s written for agent %s\n", config.AgentFile, p.Agent)
	for _, s := range p.Secrets {
		if s.Declared && !s.Set {
			fmt.Fprintf(out, "not set yet: %s\n", s.Command)
		}
	}
	fmt.Fprintln(out, "look at it, then: torno trust")
}
