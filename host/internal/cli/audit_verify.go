package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"torno.internal/broker"
	"torno.internal/host/internal/config"
	"torno.internal/protocol/control"
)

// maxKept bounds a file of checkpoints that were kept, in bytes: a day's worth of one a minute fits.
const maxKept = 16 << 20

func newAuditVerifyCommand() *cobra.Command {
	var place auditPlace
	var keys, since string
	var asJSON bool
	cmd := &cobra.Command{
		Use: "verify [--since FILE] [--public-keys FILE]", Short: "Check that nobody changed the audit", Args: exactArgs(0),
		Long: `Check that nobody changed the audit: every record follows from the one before
it, and every checkpoint is signed by the broker, with Ed25519 and with
ML-DSA-65. The first bad record is named, with its file and where it stands
there.

What stands behind the last checkpoint is not signed yet. A cut at the end, or
an older copy of the whole that was put back, shows only against a checkpoint
that was kept elsewhere: --since takes a file of them, one a line.

Without --public-keys the keys are those that the broker left beside the audit,
or none with --dir. Who can change the one can change the other: keep a copy
elsewhere, and give that.

It reads the files, and needs no broker. Exit status: 0 if all is well, 1 if
not.`,
		Example: `  torno audit verify
  torno audit verify --since /mnt/elsewhere/checkpoints --public-keys /mnt/elsewhere/keys.json
  torno audit verify --dir copy-of-audit --public-keys keys.json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := place.path()
			if err != nil {
				return err
			}
			check := control.AuditCheck{}
			if check.Keys, err = readAuditKeys(keys, place.dir != ""); err != nil {
				return err
			}
			if check.Since, err = readKept(since); err != nil {
				return err
			}
			v, err := broker.VerifyAudit(dir, check)
			if err != nil {
				return auditError(dir, err)
			}
			return printAuditVerdict(cmd.OutOrStdout(), v, asJSON)
		},
	}
	place.flag(cmd)
	cmd.Flags().StringVar(&keys, "public-keys", "", "verify signatures with the keys in this `file`")
	cmd.Flags().StringVar(&since, "since", "", "the audit must hold the checkpoints in this `file`")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// readAuditKeys reads public keys from path, or those that the broker left unless a copy is looked at.
func readAuditKeys(path string, copied bool) (*control.AuditKeys, error) {
	optional := path == ""
	if optional {
		if copied {
			return nil, nil
		}
		state, err := stateDir()
		if err != nil {
			return nil, err
		}
		path = broker.AuditKeysFile(state)
	}
	b, err := os.ReadFile(path)
	if optional && errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var k control.AuditKeys
	if err := json.Unmarshal(b, &k); err != nil {
		return nil, fmt.Errorf("public keys in %q: %w", path, err)
	}
	return &k, nil
}

// readKept reads checkpoints that were kept, one a line.
func readKept(path string) ([]string, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxKept+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxKept {
		return nil, fmt.Errorf("%q has more than %d bytes", path, maxKept)
	}
	var lines []string
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	if len(lines) == 0 {
		return nil, fmt.Errorf("%q holds no checkpoint", path)
	}
	return lines, nil
}

// printAuditVerdict prints what was found. Its error says what is wrong.
func printAuditVerdict(w io.Writer, v control.AuditVerdict, asJSON bool) error {
	var bad error
	if !v.OK {
		at := fmt.Sprintf("record %d, in %s at byte %d", v.Record, v.File, v.Offset)
		bad = &hintError{fmt.Errorf("the audit was changed: %s: %s", at, v.Problem), "the records before it are good: " + span(v)}
	}
	if asJSON {
		return errors.Join(printJSON(w, v), bad)
	}
	if bad != nil {
		return bad
	}
	signed := "no signature was verified: give --public-keys"
	if len(v.Keys) > 0 {
		signed = fmt.Sprintf("%d checkpoints, signed with keys %s; %d records behind the last one", v.Checkpoints, strings.Join(v.Keys, " and "), v.Last-v.Signed)
	}
	for _, row := range [][2]string{
		{"verified", span(v)}, {"signed", signed}, {"head", v.Head},
		{"cut off", countOf(int64(v.Interrupted), "exchanges, by the broker's death")},
		{"clock", countOf(int64(v.Backwards), "times set back, each recorded")},
		{"note", strings.Join(v.Notes, "\n")},
	} {
		if err := printRow(w, row[0], row[1]); err != nil {
			return err
		}
	}
	return nil
}

// span says which records were verified.
func span(v control.AuditVerdict) string {
	if v.Records == 0 {
		return "none"
	}
	return fmt.Sprintf("records %d to %d, until %s", v.First, v.Last, v.Time.Local().Format("2006-01-02 15:04:05"))
}

func newAuditCheckpointCommand() *cobra.Command {
	return &cobra.Command{
		Use: "checkpoint", Short: "Sign all that is recorded so far", Args: exactArgs(0),
		Long: `Sign all that is recorded so far and print the checkpoint, one line of JSON: the
number of its record, its time, the hash of the record before it, and two
signatures. Keep it where who can write to this machine's disk can't, and compare
later: torno audit verify --since FILE.`,
		Example: "  torno audit checkpoint >>/mnt/elsewhere/checkpoints",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := ensure(cmd.Context())
			if err != nil {
				return err
			}
			resp, err := c.open(cmd.Context(), "POST", control.PathAuditCheckpoint, nil)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			_, err = io.Copy(cmd.OutOrStdout(), resp.Body)
			return err
		},
	}
}

func newAuditKeysCommand() *cobra.Command {
	return &cobra.Command{
		Use: "export-public-keys", Short: "Print the keys that checkpoints are verified with", Args: exactArgs(0),
		Long: `Print the public keys that checkpoints are verified with, as JSON. Keep them where
who can write to this machine's disk can't: with them and a copy of the audit
directory "torno audit verify" works anywhere.`,
		Example: "  torno audit export-public-keys >/mnt/elsewhere/keys.json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := ensure(cmd.Context())
			if err != nil {
				return err
			}
			var k control.AuditKeys
			if err := c.do(cmd.Context(), "GET", control.PathAuditKeys, nil, &k); err != nil {
				return err
			}
			ids := broker.AuditKeyIDs(k)
			fmt.Fprintf(cmd.ErrOrStderr(), "Ed25519 %s, ML-DSA-65 %s\n", config.EscapeControl(ids[0]), config.EscapeControl(ids[1]))
			return printJSON(cmd.OutOrStdout(), k)
		},
	}
}
