package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/spf13/cobra"

	"torno.internal/broker"
	"torno.internal/host/internal/config"
	"torno.internal/protocol/control"
)

func newAuditCommand() *cobra.Command {
	return group("audit", "Read and verify the record of every request",
		newAuditTailCommand(), newAuditShowCommand(), newAuditQueryCommand(), newAuditExportCommand(),
		newAuditCheckpointCommand(), newAuditKeysCommand(), newAuditVerifyCommand())
}

// An auditPlace is the directory that a command reads the audit from. Reading needs neither the broker nor its keys,
// so that what happened can be looked up when the broker does not start, and in a copy.
type auditPlace struct{ dir string }

func (p *auditPlace) flag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.dir, "dir", "", "read a copy of the audit in this `directory`")
	_ = cmd.MarkFlagDirname("dir")
}

// path returns the directory.
func (p *auditPlace) path() (string, error) {
	if p.dir != "" {
		return p.dir, nil
	}
	state, err := stateDir()
	return broker.AuditDir(state), err
}

// auditError says what a person can do about an error of reading the audit.
func auditError(dir string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return &hintError{fmt.Errorf("no audit in %s", dir), "the first torno serve or torno run begins one; --dir reads another"}
	}
	return err
}

func newAuditTailCommand() *cobra.Command {
	var place auditPlace
	var last int
	var follow, asJSON, wide bool
	cmd := &cobra.Command{
		Use: "tail [-n N] [-f]", Short: "Show the last records", Args: exactArgs(0),
		Long: `Show the last records: what was asked, what was decided and why, and what came
of it.

Every exchange has two: ">" one before it was sent, "<" one when it ended, which
names the first. "!" is a request that was refused, "*" any other event, "#" a
checkpoint. Values of credentials are in none. Lines are cut to 80 columns;
"show" prints all that one record says.

It reads the files, and needs no broker.`,
		Example: "  torno audit tail -f\n  torno audit tail -n 100 --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := place.path()
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			err = broker.TailAudit(cmd.Context(), dir, last, follow, func(line []byte, r control.AuditRecord) error {
				if asJSON {
					_, err := fmt.Fprintf(out, "%s\n", line)
					return err
				}
				_, err := fmt.Fprintln(out, describe(&r).fit(width(wide)))
				return err
			})
			if errors.Is(cmd.Context().Err(), context.Canceled) {
				return nil // ^C is how following ends
			}
			return auditError(dir, err)
		},
	}
	place.flag(cmd)
	cmd.Flags().IntVarP(&last, "last", "n", 10, "how many records")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with new ones until ^C")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the records as they stand: one JSON object a line")
	cmd.Flags().BoolVarP(&wide, "wide", "w", false, "do not cut lines")
	return cmd
}

func newAuditShowCommand() *cobra.Command {
	var place auditPlace
	var asJSON bool
	cmd := &cobra.Command{
		Use: "show NUMBER", Short: "Show all that is recorded of one exchange", Args: exactArgs(1),
		Long: `Show all that is recorded of one exchange, or of one event. NUMBER is that of any
of its records, as "tail" and "query" print them.`,
		Example:           "  torno audit show 1234",
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			var seq uint64
			if _, err := fmt.Sscanf(args[0]+"\n", "%d\n", &seq); err != nil || seq == 0 {
				return usageError{&hintError{fmt.Errorf("%q is not the number of a record", args[0]), "torno audit tail prints them first in each line"}}
			}
			dir, err := place.path()
			if err != nil {
				return err
			}
			e, err := broker.FindAudit(dir, seq)
			switch {
			case errors.Is(err, broker.ErrNoRecord):
				return &hintError{fmt.Errorf("no record %d", seq), "torno audit tail shows the last ones; those before the first were deleted, as broker.toml says"}
			case err != nil:
				return auditError(dir, err)
			case asJSON:
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\n", e.JSON())
				return err
			}
			return printEntry(cmd.OutOrStdout(), e)
		},
	}
	place.flag(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object: the record, with that of the end in it")
	return cmd
}

// screen is how many columns a line of a table has at most.
const screen = 80

func width(wide bool) int {
	if wide {
		return 1 << 20
	}
	return screen
}

// cut shortens text to n columns, and escapes it.
func cut(s string, n int) string {
	r := []rune(config.EscapeControl(s))
	if len(r) <= n {
		return string(r)
	}
	return string(r[:max(n-1, 0)]) + "…"
}
