package cli

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"torno.internal/broker"
	"torno.internal/protocol/control"
)

// auditFilter binds the flags that say which exchanges are wanted.
type auditFilter struct {
	control.AuditFilter
	since, until string
}

func (f *auditFilter) flags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.Agent, "agent", "", "of this `agent`")
	flags.StringVar(&f.Session, "session", "", "of this session, by its `ID`")
	flags.StringVar(&f.Host, "host", "", "to this `host`: name, name:port or *.name")
	flags.StringVar(&f.Method, "method", "", "with this `method`")
	flags.StringVar(&f.Status, "status", "", "that were answered so: 404, 4xx or 400-499")
	flags.StringVar(&f.Verdict, "verdict", "", "that the policy decided so: allow, deny, ask or tunnel")
	flags.StringVar(&f.Reason, "reason", "", "that failed or were refused for this `reason`: denied, rate_limited, …")
	flags.StringVar(&f.Secret, "secret", "", "that used this secret, by its `KEY`")
	flags.StringVar(&f.Event, "event", "", "events of this `name`: secret_set, session_created, … or checkpoint")
	f.timeFlags(cmd)
	_ = cmd.RegisterFlagCompletionFunc("agent", completeAgents)
	_ = cmd.RegisterFlagCompletionFunc("session", completeSessions)
	_ = cmd.RegisterFlagCompletionFunc("verdict", cobra.FixedCompletions([]string{"allow", "deny", "ask", "tunnel"}, cobra.ShellCompDirectiveNoFileComp))
	for _, name := range []string{"host", "method", "status", "reason", "secret", "event"} {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions)
	}
}

func (f *auditFilter) timeFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.since, "since", "", "not before this `time`: 2h, 3d, 14:30, 2026-01-31, 2026-01-31T14:30:00Z")
	cmd.Flags().StringVar(&f.until, "until", "", "before this `time`, written likewise")
	_ = cmd.RegisterFlagCompletionFunc("since", cobra.NoFileCompletions)
	_ = cmd.RegisterFlagCompletionFunc("until", cobra.NoFileCompletions)
}

// read reads the times.
func (f *auditFilter) read(now time.Time) (err error) {
	if f.Since, err = parseTime("--since", f.since, now); err != nil {
		return err
	}
	f.Until, err = parseTime("--until", f.until, now)
	return err
}

// parseTime reads a point in time as a person writes it, or how long ago it was; empty is none.
func parseTime(flag, s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if days, err := strconv.Atoi(strings.TrimSuffix(s, "d")); err == nil && strings.HasSuffix(s, "d") && days >= 0 {
		return now.AddDate(0, 0, -days), nil
	}
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, nil
	}
	for _, layout := range []string{"2006-01-02", "2006-01-02 15:04", "2006-01-02 15:04:05", "2006-01-02T15:04", "2006-01-02T15:04:05"} {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			return t, nil
		}
	}
	for _, layout := range []string{"15:04", "15:04:05"} {
		if t, err := time.ParseInLocation("2006-01-02 "+layout, now.Format("2006-01-02 ")+s, now.Location()); err == nil {
			return t, nil
		}
	}
	return time.Time{}, usageError{fmt.Errorf("%s %q: want a time such as 2h, 3d, 14:30, 2026-01-31 or 2026-01-31T14:30:00Z", flag, s)}
}

func newAuditQueryCommand() *cobra.Command {
	var place auditPlace
	var filter auditFilter
	var asJSON, wide bool
	var last int
	cmd := &cobra.Command{
		Use: "query [flags]", Short: "Find exchanges and events", Args: exactArgs(0),
		Long: `Find exchanges and events, one a line, in the order in which they ended; those
that have not are last. Several flags want what all of them say. RESULT is the
response's status, or why there was none. "show" prints all that is recorded of
one.

It reads the files, and needs no broker.`,
		Example: `  torno audit query --agent my-agent --since 2h --status 4xx
  torno audit query --host '*.example.org' --verdict deny --json
  torno audit query --event secret_set`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := filter.read(time.Now()); err != nil {
				return err
			}
			dir, err := place.path()
			if err != nil {
				return err
			}
			print := func(e *broker.AuditEntry) error { return printResult(cmd.OutOrStdout(), e, width(wide)) }
			if asJSON {
				print = func(e *broker.AuditEntry) error {
					_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s\n", e.JSON())
					return err
				}
			} else if _, err := fmt.Fprintf(cmd.OutOrStdout(), resultRow, "RECORD", "TIME", "AGENT", "RESULT", "REQUEST OR EVENT\n"); err != nil {
				return err
			}
			return auditError(dir, query(cmd, dir, filter.AuditFilter, last, print))
		},
	}
	place.flag(cmd)
	filter.flags(cmd)
	cmd.Flags().IntVarP(&last, "last", "n", 0, "only the last so many (0: all)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object a line: the record, with that of the end in it")
	cmd.Flags().BoolVarP(&wide, "wide", "w", false, "do not cut lines")
	return cmd
}

// query prints what is wanted, or the last of it.
func query(cmd *cobra.Command, dir string, wanted control.AuditFilter, last int, print func(*broker.AuditEntry) error) error {
	if last <= 0 {
		return broker.QueryAudit(cmd.Context(), dir, wanted, print)
	}
	var kept []*broker.AuditEntry
	err := broker.QueryAudit(cmd.Context(), dir, wanted, func(e *broker.AuditEntry) error {
		if kept = append(kept, e); len(kept) >= 2*last {
			kept = append(kept[:0], kept[len(kept)-last:]...)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, e := range kept[max(0, len(kept)-last):] {
		if err := print(e); err != nil {
			return err
		}
	}
	return nil
}

// resultRow lays a line of query out, eventRow that of an event, which has no result and may have a long name.
const (
	resultRow = "%6s  %-14s  %-10s  %-13s  %s"
	eventRow  = "%6s  %-14s  %-10s  %s"
)

// printResult prints one exchange or event on one line.
func printResult(w io.Writer, e *broker.AuditEntry, columns int) error {
	r := &e.Record
	seq, at, agent := strconv.FormatUint(r.Seq, 10), r.Time.Local().Format("01-02 15:04:05"), cut(r.Agent, 10)
	line := fmt.Sprintf(resultRow, seq, at, agent, cut(resultOf(e), 13), requestOf(r))
	if r.Event != "" {
		words := strings.Fields(strings.Join([]string{r.Event, secretOf(r, ""), r.Session, r.Reason}, " "))
		line = fmt.Sprintf(eventRow, seq, at, agent, strings.Join(words, " "))
	}
	_, err := fmt.Fprintln(w, cut(line, columns))
	return err
}

// resultOf is what came of it, in a word.
func resultOf(e *broker.AuditEntry) string {
	switch r, end := &e.Record, e.End; {
	case r.Type == control.AuditRefused:
		return r.Reason
	case end == nil:
		return "open"
	case end.Interrupted:
		return "interrupted"
	case end.Reason != "":
		return end.Reason
	case end.Aborted:
		return strconv.Itoa(end.Status) + " aborted"
	default:
		return strconv.Itoa(end.Status)
	}
}
