package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"torno.internal/host/internal/config"
	"torno.internal/protocol/control"
)

func newReloadCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "reload", Short: "Have the broker read broker.toml again", Args: exactArgs(0),
		Long: `Have the broker read broker.toml again. A wrong file is refused as a whole, and
nothing changes.

  [agents.NAME]  holds for new sessions as it stands. Live ones are held to it
                 and to what they began with, so that it only ever narrows them,
                 and what they have open is cut
  [limits]       reflections_per_… as above, and nothing is cut; what is about
                 asking and about the audit holds for all sessions at once

All else takes a restart of the broker: listen, [[upstream]], [egress],
[metrics], [key], [audit] and [plugins]. Keys of these that have changed are
named, and ignored until then.`,
		Example: "  torno reload",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect()
			if err != nil {
				return err
			}
			var r control.Reloaded
			if err := c.do(cmd.Context(), "POST", control.PathReload, nil, &r); err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), r)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "reloaded; %d live sessions are held to it\n", r.Narrowed)
			if len(r.Changed) > 0 {
				fmt.Fprintf(cmd.OutOrStdout(), "changed: %s\n", config.EscapeControl(strings.Join(r.Changed, ", ")))
			}
			if len(r.Restart) > 0 {
				fmt.Fprintf(cmd.ErrOrStderr(), "ignored until a restart: %s\n", config.EscapeControl(strings.Join(r.Restart, ", ")))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
