package cli

import (
	"fmt"
	"os"
	"strconv"
	"strings"

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

All lists are shown in the order in which they are asked: which rule decides for
each file, and which would have if it had not. A request must pass both files.

If the working directory has a torno.toml of this agent, the request is judged
by it as it stands, trusted or not; else by the agent's trusted file, or none.

Exit status: 0 if the request would be sent, 1 if not.`,
		Example: `  torno policy check my-agent GET https://api.github.com/user
  torno policy check my-agent CONNECT ssh://github.com`,
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
	if v.Readings > 1 {
		why += fmt.Sprintf("; servers may read the path in %d ways", v.Readings)
	}
	credential := "none"
	if v.Secret != "" {
		credential = fmt.Sprintf("%s version %d", v.Secret, v.Version)
	}
	rows := [][2]string{
		{"verdict", v.Verdict}, {"because", why}, {"reason", v.Reason}, {"authority", v.Authority}, {"path", v.Path},
		{"credential", credential}, {"injector", injectorOf(v.Inject)}, {"answers", answersOf(v)},
		{"--session", v.Grant}, {"limits", boundsOf(v.Limits)},
	}
	rows = append(rows, ruleLimitsOf(v.Limits)...)
	return printRows(cmd.OutOrStdout(), "", append(rows, listsOf(v.Lists)...))
}

// injectorOf says where in a request the credential goes.
func injectorOf(in *control.Injector) string {
	if in == nil {
		return ""
	}
	names := []string{in.Scheme}
	for _, f := range in.Fields {
		names = append(names, f.Name)
	}
	return strings.Join(names, " ")
}

// answersOf says what happens to what comes back.
func answersOf(v *control.PolicyVerdict) string {
	switch {
	case v.Carries == control.SchemeSSH:
		return "encrypted, and only the key exchange is read: the agent inside signs for this connection"
	case v.Carries == control.SchemePostgres:
		return "the broker logs in to the database; what repeats the password is masked"
	case v.Verdict == "tunnel":
		return "nobody looks into a tunnel: no credential, no masking"
	case v.Guarded:
		text := "searched for the secrets that are bound to this host, and masked; "
		if v.Ranges {
			text += "Range passes"
		} else {
			text += "Range is removed"
		}
		if v.Cookies == control.CookiesPass {
			return text + ", Set-Cookie passes"
		}
		return text + ", Set-Cookie is removed"
	case v.Verdict != "allow" && v.Verdict != "ask":
		return ""
	}
	return "pass as they are"
}

// listsOf shows the lists that have rules, those that match and those that decide.
func listsOf(lists []control.PolicyList) [][2]string {
	var rows [][2]string
	file := ""
	for _, l := range lists {
		if l.Rules == 0 && !l.Decides && l.List != "default" {
			continue
		}
		text := fmt.Sprintf("%-12s %s", l.List, "none of "+strconv.Itoa(l.Rules)+" matches")
		switch {
		case l.Decides:
			text = fmt.Sprintf("%-12s %s  <- decides", l.List, l.Rule)
		case l.Rule != "":
			text = fmt.Sprintf("%-12s %s  would have", l.List, l.Rule)
		}
		name := l.File
		if name == file {
			name = " "
		}
		file = l.File
		rows = append(rows, [2]string{name, text})
	}
	return rows
}
