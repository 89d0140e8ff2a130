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
)

func newKeyCommand() *cobra.Command {
	return group("key", "Rotate, protect, unlock, split and recover the broker's key",
		newKeyShowCommand(), newKeyRotateCommand(), newKeyProtectCommand(), newKeyUnlockCommand(), newKeySplitCommand(), newKeyRecoverCommand())
}

func newKeyShowCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "show", Short: "Say which key the broker has and what protects it", Args: exactArgs(0),
		Long: `Say which key the broker has, by its id, and what protects the key file: none,
passphrase, credential or command. The key itself is never shown.`,
		Example: "  torno key show\n  torno key show --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := ensure(cmd.Context())
			if err != nil {
				return err
			}
			var info control.KeyInfo
			if err := c.do(cmd.Context(), "GET", control.PathKey, nil, &info); err != nil {
				return err
			}
			return printKey(cmd, info, asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printKey(cmd *cobra.Command, info control.KeyInfo, asJSON bool) error {
	out := cmd.OutOrStdout()
	if asJSON {
		return printJSON(out, info)
	}
	if info.Locked {
		fmt.Fprintf(out, "locked, protected by: %s\n", info.Protected)
		return nil
	}
	fmt.Fprintf(out, "key %s, protected by: %s\n", info.ID, info.Protected)
	if info.Rotation != nil {
		fmt.Fprintf(out, "a rotation is under way: %d of %d\n", info.Rotation.Done, info.Rotation.Total)
	}
	if info.Problem != "" {
		return &hintError{fmt.Errorf("the last rotation stopped: %s", info.Problem), "torno key rotate goes on with it"}
	}
	return nil
}

func newKeyRotateCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "rotate", Short: "Put a new key in the old one's place and seal everything to it", Args: exactArgs(0),
		Long: `Put a new key in the old one's place: everything in the store is sealed to it,
and the old one is forgotten. Sessions go on meanwhile, and secrets can be set.

A rotation that is interrupted, even by a power failure, leaves a store that
opens; the broker goes on with it when it runs again. ^C ends the waiting, not
the rotation.

Public keys that were exported, shares and backups belong to the old key: export
and split anew, and make a backup, when this is done. Whoever has had the old key
and an old copy of the store can still open that copy: set the secrets anew too.`,
		Example: "  torno key rotate",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := ensure(cmd.Context())
			if err != nil {
				return err
			}
			info, err := rotate(cmd, c)
			if err != nil {
				return err
			}
			return printKey(cmd, info, asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// rotate has the broker rotate its key and waits, saying how far it is.
func rotate(cmd *cobra.Command, c *client) (control.KeyInfo, error) {
	var info control.KeyInfo
	if err := c.do(cmd.Context(), "POST", control.PathKey+"/rotate", nil, &info); err != nil {
		return info, err
	}
	shown := isTerminal(os.Stderr)
	for info.Rotation != nil {
		if shown && info.Rotation.Total > 0 {
			fmt.Fprintf(cmd.ErrOrStderr(), "\r%d of %d", info.Rotation.Done, info.Rotation.Total)
		}
		select {
		case <-cmd.Context().Done():
			return info, &hintError{errors.New("the rotation goes on without us"), "torno key show says how far it is"}
		case <-time.After(50 * time.Millisecond):
		}
		info = control.KeyInfo{}
		if err := c.do(cmd.Context(), "GET", control.PathKey, nil, &info); err != nil {
			return info, err
		}
	}
	if shown {
		fmt.Fprint(cmd.ErrOrStderr(), "\r\x1b[K")
	}
	return info, nil
}

func newKeyProtectCommand() *cobra.Command {
	var with string
	cmd := &cobra.Command{
		Use: "protect --with passphrase|credential|command|none", Short: "Encrypt the key file", Args: exactArgs(0),
		Long: `Encrypt the key file from now on under something that is not in the state
directory, so that who has the directory alone, or a copy of it, has no secret.

  passphrase  that a person types when the broker starts (Argon2id, 64 MiB); it
              is also taken from --passphrase-fd, or as a credential of systemd
              named torno-passphrase
  credential  of systemd, named in broker.toml: [key] credential = "NAME";
              systemd-creds can bind it to the machine's TPM
  command     that prints 32 random bytes or more, named in broker.toml:
              [key] command = ["/path", "argument"]
  none        not at all: a file of mode 0600, the default

The key stays the same, so a copy of the file that was made before still opens:
torno key rotate makes that worthless. A passphrase is asked for on the terminal;
without one it is a line of standard input. One that protects the key now is
asked for first.`,
		Example: "  torno key protect --with passphrase\n  torno key protect --with none",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := ensure(cmd.Context())
			if err != nil {
				return err
			}
			info, err := protect(cmd, c, with)
			if err != nil {
				return err
			}
			return printKey(cmd, info, false)
		},
	}
	cmd.Flags().StringVar(&with, "with", "", "what encrypts it: passphrase, credential, command or none")
	_ = cmd.MarkFlagRequired("with")
	_ = cmd.RegisterFlagCompletionFunc("with", cobra.FixedCompletions([]string{"passphrase", "credential", "command", "none"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func protect(cmd *cobra.Command, c *client, with string) (control.KeyInfo, error) {
	var info control.KeyInfo
	if err := c.do(cmd.Context(), "GET", control.PathKey, nil, &info); err != nil {
		return info, err
	}
	req := control.KeyProtection{Protect: with}
	defer func() { clear(req.Passphrase); clear(req.Current) }()
	if info.Protected == broker.ProtectedByPassphrase {
		s, err := currentPassphrase(cmd)
		if err != nil {
			return info, err
		}
		req.Current = s.AppendTo(nil)
		s.Wipe()
	}
	if with == broker.ProtectedByPassphrase {
		s, err := newPassphrase(cmd)
		if err != nil {
			return info, err
		}
		req.Passphrase = s.AppendTo(nil)
		s.Wipe()
	}
	info = control.KeyInfo{}
	return info, c.do(cmd.Context(), "POST", control.PathKey+"/protect", req, &info)
}

// recordSplit has the broker record that the key is split.
func recordSplit(ctx context.Context, c *client, shares, threshold int) error {
	return c.do(ctx, "POST", control.PathKey+"/split", control.KeySplit{Shares: shares, Threshold: threshold}, nil)
}
