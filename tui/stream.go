package tui

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"time"

	tea "charm.land/bubbletea/v2"

	"torno.internal/protocol/control"
)

const (
	backlog    = 1000    // records that are asked for when the stream is opened
	maxBatch   = 500     // records in one message
	maxLine    = 1 << 20 // bytes of one record
	reopenWait = 2 * time.Second

	forever = 1<<63 - 1 // how long a stream may be silent
)

// What the audit's stream tells.
type (
	// streamMsg is an open stream, to be read.
	streamMsg struct{ r *recordReader }
	// recordsMsg are records that came, and the stream that more will come from.
	recordsMsg struct {
		records []control.AuditRecord
		r       *recordReader
	}
	// streamEndMsg tells that no more will come.
	streamEndMsg struct{ err error }
	reopenMsg    struct{}
)

// A recordReader reads one JSON object a line.
type recordReader struct {
	body  io.ReadCloser
	lines *bufio.Reader
	bad   int // lines that could not be read
}

// follow opens the stream of the audit: its last records, and those that come.
func (a asker) follow() tea.Cmd {
	return func() tea.Msg {
		body, err := a.broker.Follow(a.ctx, control.PathAudit+"?follow=1&last="+strconv.Itoa(backlog))
		if err != nil {
			return streamEndMsg{err}
		}
		return streamMsg{&recordReader{body: body, lines: bufio.NewReaderSize(body, maxLine)}}
	}
}

// read waits for a record and takes those with it that are there already.
func (a asker) read(r *recordReader) tea.Cmd {
	return a.command(forever, func(context.Context) tea.Msg {
		var batch []control.AuditRecord
		for len(batch) < maxBatch && (len(batch) == 0 || r.lines.Buffered() > 0) {
			line, err := r.lines.ReadSlice('\n')
			if err != nil {
				r.body.Close()
				if len(batch) > 0 {
					return recordsMsg{batch, r} // the next read says how it ended
				}
				return streamEndMsg{err}
			}
			var rec control.AuditRecord
			if json.Unmarshal(line, &rec) != nil {
				r.bad++
				continue
			}
			batch = append(batch, rec)
		}
		return recordsMsg{batch, r}
	})
}

func reopen() tea.Cmd {
	return tea.Tick(reopenWait, func(time.Time) tea.Msg { return reopenMsg{} })
}

// maxEntries is how many exchanges and refusals are kept for people to look at, and a tenth more.
const maxEntries = 5000

// An entry is one request: its beginning or refusal, and how it ended.
type entry struct {
	control.AuditRecord
	End *control.AuditRecord
}

// key tells the entry from others.
func (e *entry) key() string { return strconv.FormatUint(e.Seq, 10) }

// A requestLog is what the audit's stream has told, oldest first.
type requestLog struct {
	entries    []entry
	dropped    uint64 // entries that were too many
	last       uint64 // number of the last record
	lastTime   time.Time
	checkpoint control.AuditRecord // the last one that was seen
	proof      control.AuditRecord // the last search of a machine's memory
	live       bool                // the stream is open
}

// add takes records over. A stream that was opened again repeats some, and those of another broker's audit begin anew.
func (l *requestLog) add(records []control.AuditRecord) {
	for i := range records {
		r := &records[i]
		if r.Seq <= l.last {
			continue
		}
		l.last, l.lastTime = r.Seq, r.Time
		switch r.Type {
		case control.AuditBegin, control.AuditRefused:
			l.entries = append(l.entries, entry{AuditRecord: *r})
		case control.AuditEnd:
			l.end(r)
		case control.AuditCheckpoint:
			l.checkpoint = *r
		case control.AuditEvent:
			if r.Event == "proof" {
				l.proof = *r
			}
		}
	}
	if n := len(l.entries) - maxEntries; n > maxEntries/10 { // not for each one that comes
		l.entries = append([]entry(nil), l.entries[n:]...)
		l.dropped += uint64(n)
	}
}

// end joins an end to its beginning, which is among the last ones nearly always.
func (l *requestLog) end(r *control.AuditRecord) {
	for i := len(l.entries) - 1; i >= 0 && l.entries[i].Seq >= r.Begin; i-- {
		if l.entries[i].Seq == r.Begin {
			l.entries[i].End = r
			return
		}
	}
}

// outcome says in a word or two how a request ended, and what that means.
func (e *entry) outcome() cell {
	switch {
	case e.Type == control.AuditRefused:
		return cell{e.Reason, moodBad}
	case e.End == nil:
		return cell{"open", moodAccent}
	case e.End.Interrupted:
		return cell{"interrupted", moodWarn}
	case e.End.Status == 0:
		return cell{e.End.Reason, moodWarn}
	case e.End.Status >= 500 || e.End.Aborted:
		return cell{fmt.Sprint(e.End.Status), moodWarn}
	case e.End.Status >= 400:
		return cell{fmt.Sprint(e.End.Status), moodText}
	}
	return cell{fmt.Sprint(e.End.Status), moodGood}
}

// wrong reports whether the request was refused or failed, by us or by its upstream.
func (e *entry) wrong() bool {
	return e.Type == control.AuditRefused || e.End != nil && (e.End.Status == 0 || e.End.Status >= 400 || e.End.Aborted)
}

// target is the URL, without its scheme where that is https.
func (e *entry) target() string {
	host := e.Authority
	if n := len(host) - len(":443"); n > 0 && host[n:] == ":443" && (e.Scheme == "https" || e.Scheme == "") {
		host = host[:n]
	}
	switch {
	case e.Protocol != "":
		return e.Protocol + "://" + host + e.Path
	case e.Scheme != "" && e.Scheme != "https":
		return e.Scheme + "://" + host + e.Path
	}
	return host + e.Path
}

// because says which list and rule decided.
func (e *entry) because() string {
	switch {
	case e.Rule != "":
		return e.List + ": " + e.Rule
	case e.List != "":
		return e.List
	}
	return ""
}
