package cli

import (
	"fmt"
	"net/url"

	"github.com/spf13/cobra"

	"torno.internal/host/internal/config"
	"torno.internal/protocol/control"
)

func newApprovalsWithdrawCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "withdraw SESSION GRANT", Short: "Take back what was allowed for a session", Args: exactArgs(2), ValidArgsFunction: completeGrants,
		Long: `Take back what was allowed for the rest of a session (torno approvals allow
--session): such requests are asked about anew, and what is open to that host is
cut within a second. The rest of the session goes on.

"torno sessions show SESSION" lists what was allowed so, each with its id.`,
		Example: "  torno approvals withdraw 01m8588eq2zh04vw8qn948688n k2v9qa",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect()
			if err != nil {
				return err
			}
			var i control.SessionInfo
			path := control.PathSession + url.PathEscape(args[0]) + "/grants?" + url.Values{"grant": {args[1]}}.Encode()
			if err := c.do(cmd.Context(), "DELETE", path, nil, &i); err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), i)
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), config.EscapeControl(args[1]+": withdrawn"))
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the session as JSON")
	return cmd
}

// completeGrants completes a session and then its grants.
func completeGrants(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return completeSessions(cmd, args, prefix)
	}
	c, err := connect()
	if err != nil || len(args) > 1 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var i control.SessionInfo
	if c.do(cmd.Context(), "GET", control.PathSession+url.PathEscape(args[0]), nil, &i) != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var ids []string
	for _, g := range i.Grants {
		ids = append(ids, g.ID+"\t"+config.EscapeControl(g.Rule))
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}
