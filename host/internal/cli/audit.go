package cli

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"torno.internal/host/internal/config"
	"torno.internal/protocol/control"
)

func newAuditCommand() *cobra.Command {
	return group("audit", "Read and verify the record of every request", newAuditTailCommand(), newAuditVerifyCommand())
}

func newAuditTailCommand() *cobra.Command {
	var last int
	var follow, asJSON bool
	cmd := &cobra.Command{
		Use: "tail [--last N] [--follow]", Short: "Show the last records", Args: exactArgs(0),
		Long: `Show the last records: what was asked, what was decided and why, and what came
of it.

Every exchange has two: one before it was sent and one when it ended. Values of
credentials are in neither.`,
		Example: "  torno audit tail --follow\n  torno audit tail --last 100 --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := ensure(cmd.Context())
			if err != nil {
				return err
			}
			path := fmt.Sprintf("%s?last=%d", control.PathAudit, last)
			if follow {
				path += "&follow=1"
			}
			resp, err := c.open(cmd.Context(), "GET", path, nil)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			err = printRecords(cmd.OutOrStdout(), resp.Body, asJSON)
			if cmd.Context().Err() != nil {
				return nil // ^C is how following ends
			}
			return err
		},
	}
	cmd.Flags().IntVarP(&last, "last", "n", 10, "how many records")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with new ones until ^C")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the records as they stand: one JSON object a line")
	return cmd
}

func printRecords(w io.Writer, r io.Reader, asJSON bool) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if asJSON {
			if _, err := fmt.Fprintf(w, "%s\n", lines.Bytes()); err != nil {
				return err
			}
			continue
		}
		var rec control.AuditRecord
		if err := json.Unmarshal(lines.Bytes(), &rec); err != nil {
			return fmt.Errorf("audit record: %w", err)
		}
		if _, err := fmt.Fprintln(w, config.EscapeControl(describe(&rec))); err != nil {
			return err
		}
	}
	return lines.Err()
}

// describe puts one record on one line.
func describe(r *control.AuditRecord) string {
	head := fmt.Sprintf("%6d  %s  ", r.Seq, r.Time.Local().Format("15:04:05.000"))
	switch {
	case r.Type == "end" && r.Interrupted:
		return head + fmt.Sprintf("end of %d: interrupted", r.Begin)
	case r.Type == "end":
		text := fmt.Sprintf("end of %d: %d, %d up, %d down, %v", r.Begin, r.Status, r.Up, r.Down, time.Duration(r.Micros)*time.Microsecond)
		if r.Reason != "" {
			text += ", " + r.Reason
		}
		if r.Masked > 0 {
			text += fmt.Sprintf(", %d masked", r.Masked)
		}
		if r.Aborted {
			text += ", aborted"
		}
		return head + text
	case r.Event != "":
		return head + strings.TrimSpace(strings.Join([]string{r.Event, r.Agent, r.Secret, versionOf(r)}, " "))
	}
	text := strings.Join([]string{r.Agent, r.Method, r.Scheme + "://" + r.Authority + r.Path}, " ")
	if r.Reason != "" {
		return head + text + "  refused: " + r.Reason + because(r)
	}
	if r.Secret != "" {
		text += "  with " + strings.TrimSpace(r.Secret+" "+versionOf(r))
	}
	return head + text + because(r)
}

func versionOf(r *control.AuditRecord) string {
	if r.Version == 0 {
		return ""
	}
	return "v" + strconv.Itoa(r.Version)
}

func because(r *control.AuditRecord) string {
	switch {
	case r.Rule != "":
		return fmt.Sprintf(" (%s: %s)", r.List, r.Rule)
	case r.List != "":
		return " (" + r.List + ")"
	}
	return ""
}

func newAuditVerifyCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "verify", Short: "Check the audit's chain", Args: exactArgs(0),
		Long: `Check the audit's chain: every record follows from the one before it. An edit, a
removal within, a reordering or an insertion is named. A cut at the end shows
only against a head that you kept elsewhere: keep the one that this prints.

Exit status: 0 if the chain holds, 1 if not.`,
		Example: "  torno audit verify\n  torno audit verify --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := ensure(cmd.Context())
			if err != nil {
				return err
			}
			var v control.AuditVerdict
			if err := c.do(cmd.Context(), "POST", control.PathAuditVerify, nil, &v); err != nil {
				return err
			}
			if asJSON {
				err = printJSON(cmd.OutOrStdout(), v)
			} else if v.OK {
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "the chain holds: %d records, head %s\n", v.Records, v.Head)
			}
			if err == nil && !v.OK {
				return &hintError{fmt.Errorf("the chain is broken: %s", v.Problem), fmt.Sprintf("the %d records before it are good", v.Records)}
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
