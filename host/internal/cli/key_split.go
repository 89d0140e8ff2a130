package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"torno.internal/broker"
	"torno.internal/protocol/secret"
)

func newKeySplitCommand() *cobra.Command {
	var shares, threshold int
	var dir string
	cmd := &cobra.Command{
		Use: "split --shares N --threshold K [--dir DIR]", Short: "Split the key into shares for safekeeping", Args: exactArgs(0),
		Long: `Split the key into N shares, any K of which recover it (torno key recover), and
fewer of which say nothing about it (Shamir's scheme). Give each to another
person, or keep each in another place.

The shares are printed, one a line; with --dir each goes into a file of its own
there, share-1 to share-N, of mode 0600. A share is text that can be printed and
typed: case and white space do not matter, and a mistyped letter is noticed. With
the store or a backup, K shares open every secret: treat each like a key. Shares
belong to the key of now: after torno key rotate, split anew.

The audit records that the key was split.`,
		Example: "  torno key split --shares 5 --threshold 3\n  torno key split --shares 3 --threshold 2 --dir /media/usb",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return splitKey(cmd, shares, threshold, dir)
		},
	}
	cmd.Flags().IntVar(&shares, "shares", 0, "how many are made, 2 to 64")
	cmd.Flags().IntVar(&threshold, "threshold", 0, "how many of them recover the key")
	cmd.Flags().StringVar(&dir, "dir", "", "`directory` to write them to, each into a file")
	_ = cmd.MarkFlagRequired("shares")
	_ = cmd.MarkFlagRequired("threshold")
	_ = cmd.MarkFlagDirname("dir")
	return cmd
}

func splitKey(cmd *cobra.Command, shares, threshold int, dir string) error {
	c, err := ensure(cmd.Context())
	if err != nil {
		return err
	}
	key, err := keySource(cmd)
	if err != nil {
		return err
	}
	all, err := broker.SplitKey(key, shares, threshold)
	if err != nil {
		return err
	}
	defer wipeAll(all)
	if err := recordSplit(cmd.Context(), c, shares, threshold); err != nil {
		return err
	}
	for i, s := range all {
		if err := s.Use(func(b []byte) error { return putShare(cmd, dir, i+1, b) }); err != nil {
			return err
		}
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "any %d of these %d recover the key: torno key recover\n", threshold, shares)
	return nil
}

// keySource says where the key is, and asks for its passphrase where that is needed.
func keySource(cmd *cobra.Command) (broker.KeySource, error) {
	state, err := stateDir()
	if err != nil {
		return broker.KeySource{}, err
	}
	operator, err := readOperator("", state)
	return broker.KeySource{StateDir: state, Config: operator.Key, Passphrase: func() (secret.Value, error) { return currentPassphrase(cmd) }}, err
}

// putShare prints a share, or writes it to a new file in dir.
func putShare(cmd *cobra.Command, dir string, number int, text []byte) error {
	if dir == "" {
		_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s\n", text)
		return err
	}
	path := filepath.Join(dir, fmt.Sprintf("share-%d", number))
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return &hintError{err, "shares of another split are not replaced; name another directory"}
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%s\n", text)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		fmt.Fprintln(cmd.OutOrStdout(), path)
	}
	return err
}

func wipeAll(all []secret.Value) {
	for _, s := range all {
		s.Wipe()
	}
}

func newKeyRecoverCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "recover [FILE…]", Short: "Put the key together from shares", Args: rangeArgs(0, -1),
		Long: `Put the key together from shares that torno key split made, and write the key
file. Shares are read from files, one each; without files they are asked for on
the terminal, or read from standard input, one a line. They are never arguments,
which others can see.

No broker may run. A key file that is there is replaced only with --force, and
never by a key that the store is not sealed to. The key file is not encrypted
afterwards: torno key protect.`,
		Example: "  torno key recover share-1 share-3\n  torno key recover --force <shares",
		RunE: func(cmd *cobra.Command, args []string) error {
			return recoverKey(cmd, args, force)
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "replace the key file that is there")
	return cmd
}

func recoverKey(cmd *cobra.Command, files []string, force bool) error {
	state, err := stateDir()
	if err != nil {
		return err
	}
	shares, err := readShares(cmd, files)
	defer wipeAll(shares)
	if err != nil {
		return err
	}
	id, err := broker.RecoverKey(state, shares, force)
	if errors.Is(err, broker.ErrExists) {
		return &hintError{err, "--force replaces it"}
	}
	if err != nil {
		return busyHint(err)
	}
	fmt.Fprintf(cmd.OutOrStdout(), "key %s is recovered\n", id)
	return nil
}

// readShares reads shares from files, or from standard input.
func readShares(cmd *cobra.Command, files []string) ([]secret.Value, error) {
	var shares []secret.Value
	for _, path := range files {
		s, err := readShareFile(path)
		if err != nil {
			return shares, err
		}
		shares = append(shares, s)
	}
	if len(files) > 0 {
		return shares, nil
	}
	if isTerminal(os.Stdin) {
		return askShares(cmd)
	}
	for {
		s, err := readInputLine(cmd.InOrStdin())
		if err != nil {
			break // the end of the input
		}
		if blank(s) {
			continue
		}
		shares = append(shares, s)
	}
	return shares, nil
}

func readShareFile(path string) (secret.Value, error) {
	f, err := os.Open(path)
	if err != nil {
		if len(path) > 40 {
			return secret.Value{}, usageError{&hintError{errors.New("a share is not an argument, which others can see"), "name files, or give shares on standard input"}}
		}
		return secret.Value{}, err
	}
	defer f.Close()
	return readValue(f)
}

// askShares asks for one share after another until an empty one.
func askShares(cmd *cobra.Command) ([]secret.Value, error) {
	var shares []secret.Value
	for {
		s, err := readLine(cmd, fmt.Sprintf("Share %d (not shown; empty ends): ", len(shares)+1), false)
		if err != nil {
			return shares, err
		}
		if blank(s) {
			return shares, nil
		}
		shares = append(shares, s)
	}
}

func blank(s secret.Value) bool {
	empty := true
	_ = s.Use(func(b []byte) error { empty = len(bytes.TrimSpace(b)) == 0; return nil })
	return empty
}

// busyHint says what to do where a broker has the state directory open.
func busyHint(err error) error {
	pid := broker.BusyPID(err)
	if pid == 0 {
		return err
	}
	return &hintError{err, fmt.Sprintf("end that broker first: kill %d", pid)}
}
