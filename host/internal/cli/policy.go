package cli

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"torno.internal/host/internal/config"
	"torno.internal/protocol/control"
)

func newPolicyCommand() *cobra.Command {
	return group("policy", "Explain what an agent may do", newPolicyCheckCommand())
}

func newPolicyCheckCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "check AGENT METHOD URL",
		Short: "Say what would happen to one request, and why",
		Long: `Say what would happen to one request, and why. Nothing is sent.

If the working directory has a torno.toml of this agent, the request is judged
by it as it stands, trusted or not; else by the agent's trusted file, or none.

Exit status: 0 if the request would be sent, 1 if not.`,
		Example:           "  torno policy check my-agent GET https://api.github.com/user",
		Args:              exactArgs(3),
		ValidArgsFunction: completeAgents,
		RunE: func(cmd *cobra.Command, args []string) error {
			req := control.PolicyCheck{Agent: args[0], Method: args[1], URL: args[2]}
			dir, err := os.Getwd()
			if err != nil {
				return err
			}
			path, b, ok, err := config.FindAgentFile(dir)
			if err != nil {
				return err
			}
			if ok {
				p, err := config.ParseAgent(path, b)
				if err != nil {
					return err
				}
				if p.Name == req.Agent {
					req.Policy = &p
				}
			}
			c, err := ensure(cmd.Context())
			if err != nil {
				return err
			}
			var v control.PolicyVerdict
			if err := c.do(cmd.Context(), "POST", control.PathPolicyCheck, req, &v); err != nil {
				return err
			}
			if asJSON {
				err = printJSON(cmd.OutOrStdout(), v)
			} else {
				err = printVerdict(cmd, &v)
			}
			if err == nil && v.Verdict != "allow" && v.Verdict != "tunnel" {
				return &exitError{nil, exitFailed}
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printVerdict(cmd *cobra.Command, v *control.PolicyVerdict) error {
	why := "list " + v.List
	if v.List == "" {
		why = "the request itself"
	}
	if v.Rule != "" {
		why += ", rule " + v.Rule
	}
	answers := "pass as they are"
	switch {
	case v.Verdict == "tunnel":
		answers = "nobody looks into a tunnel: no credential, no masking"
	case v.Guarded:
		answers = "searched for the secrets that are bound to this host, and masked"
	case v.Verdict != "allow":
		answers = ""
	}
	credential := "none"
	if v.Secret != "" {
		credential = fmt.Sprintf("%s version %d", v.Secret, v.Version)
	}
	for _, row := range [][2]string{
		{"verdict", v.Verdict}, {"because", why}, {"reason", v.Reason},
		{"authority", v.Authority}, {"path", v.Path}, {"credential", credential}, {"answers", answers},
	} {
		if row[1] == "" {
			continue
		}
		if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%-11s %s\n", row[0], config.EscapeControl(row[1])); err != nil {
			return err
		}
	}
	return nil
}
