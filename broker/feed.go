package broker

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"torno.internal/broker/internal/audit"
	ctlserver "torno.internal/broker/internal/control"
	"torno.internal/broker/internal/feed"
	"torno.internal/protocol/control"
)

// feedPatience is how long a subscriber may take for one line before its connection is closed.
const feedPatience = 30 * time.Second

// events streams what happens, one JSON object a line, until the subscriber has had enough or is too slow.
func (b *Broker) events(w http.ResponseWriter, r *http.Request) {
	wanted, err := chosen(r)
	if err != nil {
		ctlserver.WriteError(w, b.log, err)
		return
	}
	sub, err := b.feed.Subscribe(wanted)
	if errors.Is(err, feed.ErrFull) {
		err = &control.Error{Code: control.CodeBusy, Message: err.Error(), Hint: "end one of them"}
	}
	if err != nil {
		ctlserver.WriteError(w, b.log, err)
		return
	}
	defer sub.Close()
	w.Header().Set("Content-Type", "application/x-ndjson")
	if !writeEvent(w, control.Event{Time: time.Now(), Kind: control.EventStream, Type: control.EventOpened}) {
		return
	}
	for {
		select {
		case <-r.Context().Done():
			return
		case e, ok := <-sub.Events():
			if !ok {
				writeEvent(w, control.Event{Time: time.Now(), Kind: control.EventStream, Type: control.EventCut, Reason: "too slow: what comes next is lost"})
				return
			}
			if !writeEvent(w, e) {
				return
			}
		}
	}
}

// writeEvent writes one line and reports whether the subscriber took it.
func writeEvent(w http.ResponseWriter, e control.Event) bool {
	line, err := json.Marshal(e)
	if err != nil {
		return false
	}
	c := http.NewResponseController(w)
	if err := c.SetWriteDeadline(time.Now().Add(feedPatience)); err != nil {
		return false
	}
	if _, err := w.Write(append(line, '\n')); err != nil {
		return false
	}
	return c.Flush() == nil
}

// chosen reads which events a subscriber wants: ?kind=, as often as there are kinds, and ?agent=. Without, all.
func chosen(r *http.Request) (func(*control.Event) bool, error) {
	if err := r.ParseForm(); err != nil {
		return nil, &control.Error{Code: control.CodeInvalid, Message: err.Error()}
	}
	kinds, agent := r.Form["kind"], r.Form.Get("agent")
	for _, k := range kinds {
		if !slices.Contains(control.EventKinds, control.EventKind(k)) {
			return nil, &control.Error{Code: control.CodeInvalid, Message: "there is no kind of events " + k, Hint: "docs/control-api.md lists them"}
		}
	}
	return func(e *control.Event) bool {
		return (len(kinds) == 0 || slices.Contains(kinds, string(e.Kind))) && (agent == "" || e.Agent == agent)
	}, nil
}

// tellOf tells subscribers of an event that the audit has got.
func (b *Broker) tellOf(r *audit.Record) {
	e := control.Event{Kind: control.EventSession, Type: r.Event, Session: r.Session, Agent: r.Agent, By: r.By, Reason: r.Reason}
	switch {
	case strings.HasPrefix(r.Event, "secret_"):
		e.Kind, e.Secret, e.Version = control.EventSecret, r.Secret, r.Version
	case r.Event == eventProofLeak:
		e.Kind = control.EventProof
	case r.Session == "":
		e.Kind = control.EventBroker
	}
	b.feed.Publish(e)
}

// tell tells subscribers how the exchange ended.
func (x *exchange) tell(status int, reason string) {
	if x.s.b.feed.Idle() {
		return
	}
	e := control.Event{Kind: control.EventExchange, Type: "exchange_ended", Session: x.s.id, Agent: x.s.agent, Reason: reason,
		Exchange: &control.ExchangeEnd{
			Method: x.method(), Authority: x.name, Status: status, Up: x.outcome.BytesUp, Down: x.outcome.BytesDown,
			Micros: time.Since(x.started).Microseconds(),
		}}
	if x.use != nil && !x.bare {
		e.Secret, e.Version = x.use.Name, x.use.Version
	}
	x.s.b.feed.Publish(e)
}
