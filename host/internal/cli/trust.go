package cli

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"torno.internal/host/internal/config"
	"torno.internal/protocol/control"
)

func newTrustCommand() *cobra.Command {
	var agent string
	var yes bool
	cmd := &cobra.Command{
		Use:   "trust [FILE]",
		Short: "See and approve an agent file",
		Long: `See and approve an agent file.

An agent file comes with a program, perhaps from somebody else, and says which
secrets it needs and where it wants to go. torno uses none that you have not
approved, byte for byte: trust shows what changed since you last did, and asks.
Control characters are shown escaped.

FILE is torno.toml in the working directory unless named.`,
		Example: "  torno trust\n  torno trust --agent my-agent --yes   # for scripts: approve without asking",
		Args:    rangeArgs(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path := config.AgentFile
			if len(args) == 1 {
				path = args[0]
			}
			b, err := os.ReadFile(path)
			if err != nil {
				return &hintError{err, "torno init writes one"}
			}
			t, err := readTrustable(path, b, agent)
			if err != nil {
				return err
			}
			c, err := ensure(cmd.Context())
			if err != nil {
				return err
			}
			return t.approve(cmd, c, yes)
		},
	}
	cmd.Flags().StringVar(&agent, "agent", "", "the agent that the file must be of (default: the one that it names)")
	cmd.Flags().BoolVar(&yes, "yes", false, "approve without asking")
	return cmd
}

// A trustable file was read and parsed; nobody has approved it yet.
type trustable struct {
	path string
	file control.TrustedFile
}

// readTrustable parses an agent file, which must be of agent unless that is "".
func readTrustable(path string, b []byte, agent string) (*trustable, error) {
	p, err := config.ParseAgent(path, b)
	if err != nil {
		return nil, err
	}
	if agent == "" {
		agent = p.Name
	}
	if err := config.CheckName(path, b, p, agent); err != nil {
		return nil, err
	}
	return &trustable{path, control.TrustedFile{Agent: agent, File: b, Policy: p}}, nil
}

// before returns what is trusted now; nothing if no file is.
func (t *trustable) before(ctx context.Context, c *client) (control.TrustedFile, error) {
	var old control.TrustedFile
	err := c.do(ctx, "GET", control.PathTrust+"?"+url.Values{"agent": {t.file.Agent}}.Encode(), nil, &old)
	var e *control.Error
	if errors.As(err, &e) && e.Code == control.CodeNotFound {
		return control.TrustedFile{}, nil
	}
	return old, err
}

// ensure makes sure that the file is trusted: it is already, force says so, or a person on a terminal
// does. Otherwise its error says what to type.
func (t *trustable) ensure(cmd *cobra.Command, c *client, force bool) error {
	old, err := t.before(cmd.Context(), c)
	if err != nil || string(old.File) == string(t.file.File) {
		return err
	}
	if force {
		return t.put(cmd, c)
	}
	if !isTerminal(os.Stdin) {
		what := "is not trusted yet"
		if len(old.File) > 0 {
			what = "has changed since it was trusted"
		}
		return &hintError{fmt.Errorf("%s %s", t.path, what), fmt.Sprintf("torno trust --agent %s %s; or --trust-config to approve it as it is", t.file.Agent, t.path)}
	}
	return t.approve(cmd, c, false)
}

// approve shows the file, or what changed, asks unless told not to, and approves it.
func (t *trustable) approve(cmd *cobra.Command, c *client, yes bool) error {
	old, err := t.before(cmd.Context(), c)
	if err != nil {
		return err
	}
	out := cmd.ErrOrStderr()
	if string(old.File) == string(t.file.File) {
		fmt.Fprintf(out, "%s is trusted already\n", t.path)
		return nil
	}
	fmt.Fprint(out, config.Diff("trusted", filepath.Base(t.path), old.File, t.file.File))
	if !yes {
		if !isTerminal(os.Stdin) {
			return &hintError{errors.New("no terminal to ask on"), "--yes approves without asking"}
		}
		if ok, err := agreed(cmd, fmt.Sprintf("Trust this file for agent %s? [y/N] ", t.file.Agent)); err != nil {
			return err
		} else if !ok {
			return errors.New("not trusted")
		}
	}
	if err := t.put(cmd, c); err != nil {
		return err
	}
	fmt.Fprintf(out, "%s is trusted for agent %s\n", t.path, t.file.Agent)
	return nil
}

func (t *trustable) put(cmd *cobra.Command, c *client) error {
	return c.do(cmd.Context(), "PUT", control.PathTrust, t.file, nil)
}
