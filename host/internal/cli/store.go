package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"torno.internal/broker"
	"torno.internal/protocol/control"
)

func newStoreCommand() *cobra.Command {
	return group("store", "Back up, restore and verify what the broker keeps",
		newStoreBackupCommand(), newStoreRestoreCommand(), newStoreVerifyCommand())
}

func newStoreBackupCommand() *cobra.Command {
	var force, asJSON bool
	cmd := &cobra.Command{
		Use: "backup FILE", Short: "Write a backup of the store", Args: exactArgs(1),
		Long: `Write a backup of the store: secrets in all versions, trusted files and sessions,
as they are at this moment. The broker goes on meanwhile.

Values in it are sealed, and the key is not in it: keep that apart (torno key
split, or a copy of the file "key"). A backup can be opened with the key of when
it was made, so make one after each torno key rotate. Names of agents and
secrets, and where secrets go, can be read in it by anybody.

FILE is written whole or not at all, with mode 0600.`,
		Example: "  torno store backup torno-$(date +%F).backup",
		RunE: func(cmd *cobra.Command, args []string) error {
			info, err := backup(cmd, args[0], force)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), info)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: commit %d, %d bytes, needs key %s, which is not in it\n", args[0], info.Commit, info.Bytes, info.KeyID)
			return err
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "replace FILE if it is there")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// backupHead is how many bytes of a backup say what it is of.
const backupHead = 128

func backup(cmd *cobra.Command, path string, force bool) (control.BackupInfo, error) {
	var none control.BackupInfo
	c, err := ensure(cmd.Context())
	if err != nil {
		return none, err
	}
	if _, err := os.Lstat(path); err == nil && !force {
		return none, &hintError{fmt.Errorf("%s exists", path), "--force replaces it"}
	}
	resp, err := c.open(cmd.Context(), "GET", control.PathStore+"/backup", nil)
	if err != nil {
		return none, err
	}
	defer resp.Body.Close()
	f, err := os.CreateTemp(filepath.Dir(path), ".torno-backup-*") // mode 0600
	if err != nil {
		return none, err
	}
	defer os.Remove(f.Name())
	size, err := io.Copy(f, resp.Body)
	head := make([]byte, min(backupHead, size))
	_, readErr := f.ReadAt(head, 0)
	if err = errors.Join(err, readErr, f.Sync(), f.Close()); err != nil {
		return none, fmt.Errorf("writing the backup: %w", err)
	}
	info, err := broker.ReadBackupInfo(head)
	if err == nil && info.Bytes != size {
		err = fmt.Errorf("the backup has %d bytes, %d came", info.Bytes, size)
	}
	if err != nil {
		return none, err
	}
	return info, os.Rename(f.Name(), path)
}

func newStoreRestoreCommand() *cobra.Command {
	var force, asJSON bool
	cmd := &cobra.Command{
		Use: "restore FILE", Short: "Put a backup in the store's place", Args: exactArgs(1),
		Long: `Put a backup in the store's place. No broker may run, and the key that the backup
was made with must be there: on a new machine first torno key recover, or copy
the file "key" into the state directory.

Everything in the backup is checked before anything is replaced. A store that is
there is replaced only with --force, and kept as store.db.before-restore. Secrets
that were set or deleted after the backup was made are as they were before that;
their version numbers count on from there. Sessions have ended: one of them may
have been revoked since.

The audit goes on, and records that the store was restored. A checkpoint of it
that was kept elsewhere still verifies: it is how anybody else can tell a store
that was restored from one that was put back unseen.`,
		Example: "  torno store restore torno-2026-11-28.backup --force",
		RunE: func(cmd *cobra.Command, args []string) error {
			v, err := withBackup(cmd, args[0], func(k broker.KeySource, f *os.File) (control.StoreVerdict, error) {
				return broker.RestoreStore(k, f, force)
			})
			if errors.Is(err, broker.ErrExists) {
				return &hintError{err, "--force replaces it, and keeps it beside"}
			}
			if err != nil {
				return busyHint(err)
			}
			return printStoreVerdict(cmd, &v, "restored", asJSON)
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "replace the store that is there")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func newStoreVerifyCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "verify [FILE]", Short: "Check everything in the store, or in a backup", Args: rangeArgs(0, 1),
		Long: `Check everything in the store against its manifest: whatever was edited, removed,
put in another's place or put back is named. With FILE a backup is checked
instead, with the key of the state directory; it is not restored.

Whether an older store was put back the broker finds when it starts, by the
audit, and says in the audit and in its log; whether store and audit were put back
together only a checkpoint of the audit says that was kept elsewhere.

Exit status: 0 if everything is as torno wrote it, 1 if not.`,
		Example: "  torno store verify\n  torno store verify torno-2026-11-28.backup",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				v, err := withBackup(cmd, args[0], func(k broker.KeySource, f *os.File) (control.StoreVerdict, error) { return broker.VerifyBackup(k, f) })
				if err != nil {
					return err
				}
				return printStoreVerdict(cmd, &v, "a good backup", asJSON)
			}
			c, err := ensure(cmd.Context())
			if err != nil {
				return err
			}
			var v control.StoreVerdict
			if err := c.do(cmd.Context(), "POST", control.PathStore+"/verify", nil, &v); err != nil {
				return err
			}
			return printStoreVerdict(cmd, &v, "the store is as torno wrote it", asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// withBackup calls f with a backup and what opens it.
func withBackup(cmd *cobra.Command, path string, f func(broker.KeySource, *os.File) (control.StoreVerdict, error)) (control.StoreVerdict, error) {
	k, err := keySource(cmd)
	if err != nil {
		return control.StoreVerdict{}, err
	}
	file, err := os.Open(path)
	if err != nil {
		return control.StoreVerdict{}, err
	}
	defer file.Close()
	v, err := f(k, file)
	if hint := broker.Hint(err); hint != "" {
		err = &hintError{err, hint}
	}
	return v, err
}

// printStoreVerdict prints a verdict for people or programs. What is broken is an error.
func printStoreVerdict(cmd *cobra.Command, v *control.StoreVerdict, good string, asJSON bool) error {
	out := cmd.OutOrStdout()
	switch {
	case asJSON:
		if err := printJSON(out, v); err != nil {
			return err
		}
	case v.OK || v.Backup != nil:
		fmt.Fprintf(out, "%s: %d secrets (%d versions) of %d agents, %d sessions, commit %d", good, v.Secrets, v.Versions, v.Agents, v.Sessions, v.Commit)
		if v.Backup != nil {
			fmt.Fprintf(out, ", made %s", v.Backup.Made.Local().Format(time.DateTime))
		}
		fmt.Fprintln(out)
	}
	if v.OK {
		return nil
	}
	for _, b := range v.Broken {
		fmt.Fprintln(cmd.ErrOrStderr(), "torno:", escapeLines(b.Problem))
	}
	return &hintError{fmt.Errorf("%d entries were changed outside of torno", len(v.Broken)), "set them anew, or torno store restore a backup"}
}
