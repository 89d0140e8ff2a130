package tui

import (
	"bufio"
	"context"
	"encoding/json"
	"net/url"

	tea "charm.land/bubbletea/v2"

	"torno.internal/protocol/control"
)

// What the stream of events tells. Its events say only that something changed: what it is now is asked for.
type (
	eventStreamMsg struct{ r *recordReader }
	eventsMsg      struct{ r *recordReader }
	eventEndMsg    struct{}
)

// listen opens the stream of events. Exchanges are not among them: the audit tells of those, and why.
func (a asker) listen() tea.Cmd {
	kinds := url.Values{}
	for _, k := range control.EventKinds {
		if k != control.EventExchange {
			kinds.Add("kind", string(k))
		}
	}
	return func() tea.Msg {
		body, err := a.broker.Follow(a.ctx, control.PathEvents+"?"+kinds.Encode())
		if err != nil {
			return eventEndMsg{}
		}
		return eventStreamMsg{&recordReader{body: body, lines: bufio.NewReaderSize(body, maxLine)}}
	}
}

// hear waits for an event and takes those with it that are there already.
func (a asker) hear(r *recordReader) tea.Cmd {
	return a.command(forever, func(context.Context) tea.Msg {
		for first := true; first || r.lines.Buffered() > 0; first = false {
			line, err := r.lines.ReadSlice('\n')
			var e control.Event
			if err != nil || json.Unmarshal(line, &e) != nil || e.Type == control.EventCut {
				r.body.Close()
				return eventEndMsg{}
			}
		}
		return eventsMsg{r}
	})
}
