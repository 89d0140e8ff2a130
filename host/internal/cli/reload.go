package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"torno.internal/protocol/control"
)

func newReloadCommand() *cobra.Command {
	return &cobra.Command{
		Use: "reload", Short: "Have the broker read broker.toml again", Args: exactArgs(0),
		Long: `Have the broker read broker.toml again. What it says of agents holds for new
sessions as it stands. Live sessions are held to it and to what they began with,
so that it only ever narrows them, and what they have open is cut. A wrong file
is refused as a whole, and nothing changes.

Whatever else the file says takes a restart; that it has changed is said.`,
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
			fmt.Fprintf(cmd.OutOrStdout(), "reloaded; %d live sessions are held to it\n", r.Narrowed)
			if len(r.Restart) > 0 {
				fmt.Fprintf(cmd.ErrOrStderr(), "takes a restart: %s\n", strings.Join(r.Restart, ", "))
			}
			return nil
		},
	}
}
