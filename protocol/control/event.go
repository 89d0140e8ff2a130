package control

import "time"

// PathEvents tells of what happens.
const PathEvents = "/v1/events" // GET ?kind=&agent= → one Event a line

// An Event is one line of the event stream. Members that do not apply are left out.
type Event struct {
	Seq  uint64    `json:"seq"` // counts from the broker's start, over all kinds
	Time time.Time `json:"time"`
	Kind EventKind `json:"kind"`
	Type string    `json:"type"` // what happened: "session_created", "exchange_ended", …

	Session  string       `json:"session,omitempty"`
	Agent    string       `json:"agent,omitempty"`
	Secret   string       `json:"secret,omitempty"`
	Version  int          `json:"version,omitempty"`
	By       string       `json:"by,omitempty"` // who did it, where a person did
	Reason   string       `json:"reason,omitempty"`
	Approval *Approval    `json:"approval,omitempty"`
	Exchange *ExchangeEnd `json:"exchange,omitempty"`
	Proof    *Proof       `json:"proof,omitempty"`
}

// An EventKind says what an Event is about, so that subscribers can choose.
type EventKind string

// The kinds.
const (
	EventSession  EventKind = "session"
	EventApproval EventKind = "approval"
	EventExchange EventKind = "exchange"
	EventSecret   EventKind = "secret"
	EventProof    EventKind = "proof"
	EventStream   EventKind = "stream" // about the stream of events itself
	EventBroker   EventKind = "broker"
)

// EventKinds are all kinds that a subscriber may choose.
var EventKinds = []EventKind{EventSession, EventApproval, EventExchange, EventSecret, EventProof, EventBroker}

// Types of events of kind EventStream.
const (
	EventOpened = "stream_opened" // the first line: whatever happens from here on is told
	EventCut    = "stream_cut"    // the last line: the subscriber was too slow, and what came next is lost to it
)

// An ExchangeEnd says how one exchange ended, or why it was refused.
type ExchangeEnd struct {
	Method    string `json:"method"`
	Authority string `json:"authority"`
	Status    int    `json:"status"` // that the workload got
	Up        int64  `json:"up"`     // bytes of content
	Down      int64  `json:"down"`
	Micros    int64  `json:"us"`
}
