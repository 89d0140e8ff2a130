package cli

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"torno.internal/broker"
	"torno.internal/host/internal/config"
	"torno.internal/protocol/control"
)

// A recordLine is one record for people: what comes of before and behind is shown whole, of text as much as fits.
type recordLine struct{ before, text, behind string }

// fit puts it on one line of at most n columns.
func (l recordLine) fit(n int) string {
	before, behind := config.EscapeControl(l.before), config.EscapeControl(l.behind)
	room := n - len([]rune(before)) - len([]rune(behind))
	if least := 24; room < least { // rather lose the end of the line than what it is about
		room = least
	}
	return cut(strings.TrimRight(before+cut(l.text, room)+behind, " "), n)
}

// describe puts one record on one line.
func describe(r *control.AuditRecord) recordLine {
	head := func(mark string) string {
		return fmt.Sprintf("%6d %s %s ", r.Seq, r.Time.Local().Format("15:04:05"), mark)
	}
	switch r.Type {
	case control.AuditBegin:
		return recordLine{head(">") + r.Agent + " ", requestOf(r), secretOf(r, " with ") + approvalOf(r)}
	case control.AuditRefused:
		return recordLine{head("!") + r.Agent + " ", requestOf(r), " refused: " + r.Reason + because(r)}
	case control.AuditEnd:
		return recordLine{before: head("<") + strconv.FormatUint(r.Begin, 10) + " ", text: outcomeOf(r)}
	case control.AuditCheckpoint:
		return recordLine{before: head("#"), text: "checkpoint"}
	}
	words := []string{r.Event, r.Agent, strings.TrimSpace(secretOf(r, "")), r.Session, r.Reason, r.Verdict}
	if r.Authority != "" {
		words = append(words, requestOf(r))
	}
	if r.Count > 0 {
		words = append(words, strconv.FormatInt(r.Count, 10))
	}
	if r.By != "" {
		words = append(words, "by "+r.By)
	}
	return recordLine{before: head("*"), text: strings.Join(strings.Fields(strings.Join(words, " ")), " ")}
}

// requestOf is the method and the URL, which goes without its scheme where that is https.
func requestOf(r *control.AuditRecord) string {
	url := strings.TrimSuffix(r.Authority, ":443") + r.Path
	switch {
	case r.Scheme != "" && r.Scheme != "https":
		url = r.Scheme + "://" + r.Authority + r.Path
	case r.Protocol != "":
		url = r.Protocol + "://" + url
	}
	return r.Method + " " + url
}

func outcomeOf(r *control.AuditRecord) string {
	if r.Interrupted {
		return "interrupted: the broker ended before it did"
	}
	text := fmt.Sprintf("%d, %s up, %s down, %v", r.Status, bytesOf(r.Up), bytesOf(r.Down), micros(r.Micros))
	if r.Reason != "" {
		text += ", " + r.Reason
	}
	if r.Masked > 0 {
		text += fmt.Sprintf(", %d masked", r.Masked)
	}
	if r.Aborted {
		text += ", aborted"
	}
	return text
}

func micros(n int64) time.Duration { return time.Duration(n) * time.Microsecond }

// bytesOf prints a size with three digits or so.
func bytesOf(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB"}
	v, i := float64(n), 0
	for v >= 1000 && i < len(units)-1 {
		v, i = v/1024, i+1
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", v, units[i])
}

func secretOf(r *control.AuditRecord, before string) string {
	switch {
	case r.Secret == "":
		return ""
	case r.Version == 0:
		return before + r.Secret
	}
	return fmt.Sprintf("%s%s v%d", before, r.Secret, r.Version)
}

func because(r *control.AuditRecord) string {
	switch {
	case r.Approval != "":
		return fmt.Sprintf(" (%s: %s, %s)", r.List, r.Rule, r.Approval)
	case r.Rule != "":
		return fmt.Sprintf(" (%s: %s)", r.List, r.Rule)
	case r.List != "":
		return " (" + r.List + ")"
	}
	return ""
}

// approvalOf is what a person said of the request, if one was asked.
func approvalOf(r *control.AuditRecord) string {
	if r.Approval == "" {
		return ""
	}
	return " (" + r.Approval + ")"
}

// printEntry prints all that is recorded of one exchange, or of an event.
func printEntry(w io.Writer, e *broker.AuditEntry) error {
	r := &e.Record
	url := r.Authority + r.Path
	if r.Scheme != "" {
		url = r.Scheme + "://" + url
	}
	if r.PathBytes > 0 {
		url += fmt.Sprintf(" … (%d bytes, SHA-256 %s)", r.PathBytes, r.PathSHA256)
	}
	rows := [][2]string{
		{"record", strconv.FormatUint(r.Seq, 10) + " " + r.Type}, {"time", r.Time.Local().Format("2006-01-02 15:04:05.000000 MST")},
		{"event", r.Event}, {"by", r.By}, {"session", r.Session}, {"agent", r.Agent},
		{"request", strings.TrimSpace(r.Method + " " + url)}, {"protocol", r.Protocol}, {"dialled", r.Dialled},
		{"decision", strings.TrimSpace(r.Verdict + because(r))}, {"approval", r.Approval}, {"refused", r.Reason},
		{"secret", secretOf(r, "")}, {"marks", countOf(int64(r.Placeholders), "placeholders in the request")},
		{"sha256", r.SHA256}, {"commit", countOf(int64(r.Commit), "of the store, manifest "+r.Manifest)},
		{"through", countOf(int64(r.Through), "")}, {"count", countOf(r.Count, "")}, {"fields", strings.Join(r.Fields, "\n")},
	}
	switch end := e.End; {
	case r.Type == control.AuditEnd:
		rows = append(rows, [2]string{"of", fmt.Sprintf("record %d, which was deleted", r.Begin)})
		rows = append(rows, endRows(r)...)
	case end != nil:
		rows = append(rows, [2]string{"ended", fmt.Sprintf("record %d, %s", end.Seq, end.Time.Local().Format("15:04:05.000000"))})
		rows = append(rows, endRows(end)...)
	case r.Type == control.AuditBegin:
		rows = append(rows, [2]string{"ended", "not yet"})
	}
	for _, row := range rows {
		if err := printRow(w, row[0], row[1]); err != nil {
			return err
		}
	}
	return nil
}

func endRows(r *control.AuditRecord) [][2]string {
	if r.Interrupted {
		return [][2]string{{"outcome", outcomeOf(r)}}
	}
	times := fmt.Sprintf("%v in all", micros(r.Micros))
	if r.HeadMicros > 0 {
		times += fmt.Sprintf(", %v until the response's head", micros(r.HeadMicros))
	}
	if r.DialMicros > 0 {
		times += fmt.Sprintf(", of which %v to connect", micros(r.DialMicros))
	}
	upstream := r.Upstream
	if r.Via != "" {
		upstream += " via " + r.Via
	}
	outcome := strings.TrimSpace(fmt.Sprintf("%d %s", r.Status, r.Reason))
	if r.Aborted {
		outcome += ", aborted"
	}
	return [][2]string{
		{"outcome", outcome}, {"bytes", fmt.Sprintf("%d up, %d down", r.Up, r.Down)},
		{"took", times}, {"upstream", upstream}, {"masked", countOf(int64(r.Masked), "runs of secrets in the response")},
	}
}

func countOf(n int64, what string) string {
	if n == 0 {
		return ""
	}
	return strings.TrimSpace(fmt.Sprintf("%d %s", n, what))
}

// printRow prints a name and a value, which may be of several lines, or nothing if it is empty.
func printRow(w io.Writer, name, value string) error {
	if value == "" {
		return nil
	}
	const indent = 10
	for _, line := range strings.Split(value, "\n") {
		runes := []rune(config.EscapeControl(line))
		for first := true; first || len(runes) > 0; first = false {
			n := min(len(runes), screen-indent)
			if _, err := fmt.Fprintf(w, "%-*s%s\n", indent, name, string(runes[:n])); err != nil {
				return err
			}
			runes, name = runes[n:], ""
		}
	}
	return nil
}
