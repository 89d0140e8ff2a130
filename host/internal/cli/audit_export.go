package cli

import (
	"bufio"
	"encoding/csv"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"torno.internal/broker"
	"torno.internal/host/internal/config"
	"torno.internal/protocol/control"
)

func newAuditExportCommand() *cobra.Command {
	var place auditPlace
	var filter auditFilter
	var format string
	cmd := &cobra.Command{
		Use: "export [--format jsonl|csv|otlp]", Short: "Write the audit for other programs", Args: exactArgs(0),
		Long: `Write the audit for other programs:

  jsonl  the records as they stand, one JSON object a line, checkpoints too: what
         was signed, byte for byte
  csv    one row for each exchange and event, with a heading (RFC 4180)
  otlp   OpenTelemetry log records, one for each exchange and event, as JSON: each
         line is one export request of at most 500 records

It reads the files, and needs no broker.`,
		Example: "  torno audit export --since 24h --format csv >yesterday.csv\n  torno audit export --format otlp | curl -d @- -H 'content-type: application/json' http://127.0.0.1:4318/v1/logs",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := filter.read(time.Now()); err != nil {
				return err
			}
			dir, err := place.path()
			if err != nil {
				return err
			}
			export, ok := exporters[format]
			if !ok {
				return usageError{fmt.Errorf("--format %q: want jsonl, csv or otlp", format)}
			}
			w := bufio.NewWriter(cmd.OutOrStdout())
			if err := export(cmd, dir, filter.AuditFilter, w); err != nil {
				return auditError(dir, err)
			}
			return w.Flush()
		},
	}
	place.flag(cmd)
	filter.timeFlags(cmd)
	cmd.Flags().StringVar(&format, "format", "jsonl", "jsonl, csv or otlp")
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"jsonl", "csv", "otlp"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// exporters write the audit in dir, each in its format.
var exporters = map[string]func(cmd *cobra.Command, dir string, wanted control.AuditFilter, w io.Writer) error{
	"jsonl": exportJSONL, "csv": exportCSV, "otlp": exportOTLP,
}

func exportJSONL(cmd *cobra.Command, dir string, wanted control.AuditFilter, w io.Writer) error {
	return broker.ReadAudit(cmd.Context(), dir, wanted.Since, wanted.Until, func(line []byte, _ control.AuditRecord) error {
		_, err := fmt.Fprintf(w, "%s\n", line)
		return err
	})
}

// csvColumns are the columns of a row, and where they come from: the record, and that of its end, which is empty
// where there is none.
var csvColumns = []struct {
	name string
	of   func(r, end *control.AuditRecord) string
}{
	{"record", func(r, _ *control.AuditRecord) string { return strconv.FormatUint(r.Seq, 10) }},
	{"time", func(r, _ *control.AuditRecord) string { return r.Time.Format(time.RFC3339Nano) }},
	{"type", func(r, _ *control.AuditRecord) string { return r.Type }},
	{"event", func(r, _ *control.AuditRecord) string { return r.Event }},
	{"by", func(r, _ *control.AuditRecord) string { return r.By }},
	{"session", func(r, _ *control.AuditRecord) string { return r.Session }},
	{"agent", func(r, _ *control.AuditRecord) string { return r.Agent }},
	{"method", func(r, _ *control.AuditRecord) string { return r.Method }},
	{"protocol", func(r, _ *control.AuditRecord) string { return r.Protocol }},
	{"scheme", func(r, _ *control.AuditRecord) string { return r.Scheme }},
	{"authority", func(r, _ *control.AuditRecord) string { return r.Authority }},
	{"path", func(r, _ *control.AuditRecord) string { return r.Path }},
	{"dialled", func(r, _ *control.AuditRecord) string { return r.Dialled }},
	{"fields", func(r, _ *control.AuditRecord) string { return strings.Join(r.Fields, "; ") }},
	{"verdict", func(r, _ *control.AuditRecord) string { return r.Verdict }},
	{"list", func(r, _ *control.AuditRecord) string { return r.List }},
	{"rule", func(r, _ *control.AuditRecord) string { return r.Rule }},
	{"approval", func(r, _ *control.AuditRecord) string { return r.Approval }},
	{"reason", func(r, end *control.AuditRecord) string { return r.Reason + end.Reason }},
	{"secret", func(r, _ *control.AuditRecord) string { return r.Secret }},
	{"version", func(r, _ *control.AuditRecord) string { return number(int64(r.Version)) }},
	{"placeholders", func(r, _ *control.AuditRecord) string { return number(int64(r.Placeholders)) }},
	{"sha256", func(r, _ *control.AuditRecord) string { return r.SHA256 }},
	{"count", func(r, _ *control.AuditRecord) string { return number(r.Count) }},
	{"ended", func(_, end *control.AuditRecord) string { return number(int64(end.Seq)) }},
	{"status", func(_, end *control.AuditRecord) string { return number(int64(end.Status)) }},
	{"up", func(_, end *control.AuditRecord) string { return numberOf(end, end.Up) }},
	{"down", func(_, end *control.AuditRecord) string { return numberOf(end, end.Down) }},
	{"dial_us", func(_, end *control.AuditRecord) string { return number(end.DialMicros) }},
	{"head_us", func(_, end *control.AuditRecord) string { return number(end.HeadMicros) }},
	{"us", func(_, end *control.AuditRecord) string { return numberOf(end, end.Micros) }},
	{"upstream", func(_, end *control.AuditRecord) string { return end.Upstream }},
	{"via", func(_, end *control.AuditRecord) string { return end.Via }},
	{"masked", func(_, end *control.AuditRecord) string { return number(int64(end.Masked)) }},
	{"aborted", func(_, end *control.AuditRecord) string { return truth(end.Aborted) }},
	{"interrupted", func(_, end *control.AuditRecord) string { return truth(end.Interrupted) }},
}

func number(n int64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}

// numberOf is a number that may be zero, of a record that may be none.
func numberOf(r *control.AuditRecord, n int64) string {
	if r.Seq == 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}

func truth(b bool) string {
	if b {
		return "true"
	}
	return ""
}

func exportCSV(cmd *cobra.Command, dir string, wanted control.AuditFilter, w io.Writer) error {
	out := csv.NewWriter(w)
	row := make([]string, len(csvColumns))
	for i, c := range csvColumns {
		row[i] = c.name
	}
	if err := out.Write(row); err != nil {
		return err
	}
	err := broker.QueryAudit(cmd.Context(), dir, wanted, func(e *broker.AuditEntry) error {
		end := e.End
		if end == nil {
			end = &control.AuditRecord{}
		}
		for i, c := range csvColumns {
			row[i] = cell(c.of(&e.Record, end))
		}
		return out.Write(row)
	})
	out.Flush()
	if err != nil {
		return err
	}
	return out.Error()
}

// cell makes text safe to open in a spreadsheet, which would run what looks like a formula.
func cell(s string) string {
	s = config.EscapeControl(s)
	if strings.IndexAny(s, "=+-@") == 0 {
		return "'" + s
	}
	return s
}
