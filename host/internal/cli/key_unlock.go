package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"torno.internal/broker"
	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// unlockWait is how long a broker may take to open its state once it has the passphrase.
const unlockWait = time.Minute

func newKeyUnlockCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "unlock [--passphrase-file FILE]", Short: "Give the passphrase to a broker that waits for it", Args: exactArgs(0),
		Long: `Give the passphrase of its key to a broker that waits for it: one that was
started where nobody could be asked, by systemd say. Until then it answers
nothing but that it is locked.

The passphrase is asked for on the terminal, and not shown; without one it is a
line of standard input. After a wrong one the broker takes none for a second,
after the next for two, and so on up to a minute; the audit has each.`,
		Example: "  torno key unlock\n  torno key unlock --passphrase-file /run/keys/torno",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := connect()
			if err != nil {
				return err
			}
			h, err := c.health(cmd.Context())
			if errors.Is(err, errNoBroker) {
				return &hintError{err, "start one: torno serve"}
			}
			if err != nil {
				return err
			}
			if !h.Locked {
				fmt.Fprintln(cmd.ErrOrStderr(), "torno: the broker is not locked")
				return nil
			}
			return unlock(cmd, c, file)
		},
	}
	cmd.Flags().StringVar(&file, "passphrase-file", "", "`file` to read the passphrase from; - for standard input")
	return cmd
}

// unlock gives the broker the passphrase and waits until it has opened its state.
func unlock(cmd *cobra.Command, c *client, file string) error {
	s, err := readUnlock(cmd, file)
	if err != nil {
		return err
	}
	defer s.Wipe()
	req := control.KeyUnlock{Passphrase: s.AppendTo(nil)}
	defer clear(req.Passphrase)
	if err := c.do(cmd.Context(), "POST", control.PathUnlock, req, nil); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), unlockWait)
	defer cancel()
	for {
		h, err := c.health(ctx)
		if err == nil && !h.Locked {
			fmt.Fprintln(cmd.OutOrStdout(), "unlocked")
			return nil
		}
		select {
		case <-ctx.Done():
			return &hintError{errors.New("the broker has the passphrase, and does not answer"), "its log says why"}
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// readUnlock reads the passphrase out of a file, or asks for it.
func readUnlock(cmd *cobra.Command, file string) (secret.Value, error) {
	if file == "" {
		return currentPassphrase(cmd)
	}
	if file == "-" {
		return readInputLine(cmd.InOrStdin())
	}
	f, err := os.Open(file)
	if err != nil {
		return secret.Value{}, err
	}
	defer f.Close()
	return broker.ReadSecret(f)
}
