package broker

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"torno.internal/broker/internal/audit"
	ctlserver "torno.internal/broker/internal/control"
	"torno.internal/broker/internal/proof"
	"torno.internal/broker/internal/redact"
	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// proofsPerMinute bounds how often the memory of an agent's machines is searched. Together with the
// suspension at the first find it keeps the search from being of use to who guesses.
const proofsPerMinute = 6

// prove searches the memory of a session's machine, which comes as a memfd beside the request, for the
// session's secrets. Only the process that registered the session may ask, and it gets totals.
func (b *Broker) prove(r *http.Request) (control.Proof, error) {
	conn := ctlserver.ConnOf(r.Context())
	s := b.get(r.PathValue("id"))
	if s == nil {
		return control.Proof{}, noSession(r.PathValue("id"))
	}
	if conn == nil || conn.PID == 0 || conn.PID != s.owner.Load() {
		return control.Proof{}, &control.Error{Code: control.CodeConflict, Message: "only the process that registered the session may have its memory searched", Hint: "torno run --prove"}
	}
	if s.record.Isolation() != protocol.IsolationMicroVM {
		return control.Proof{}, &control.Error{Code: control.CodeInvalid, Message: "the session's guest has no memory of its own", Hint: "--isolation microvm"}
	}
	memory := conn.TakeFile()
	if memory == nil {
		return control.Proof{}, &control.Error{Code: control.CodeInvalid, Message: "no memory came with the request"}
	}
	defer memory.Close()
	if _, err := proof.Check(memory); err != nil {
		return control.Proof{}, &control.Error{Code: control.CodeInvalid, Message: err.Error()}
	}
	if !b.mayProve(s.agent, time.Now()) {
		return control.Proof{}, &control.Error{Code: control.CodeBusy, Message: fmt.Sprintf("memory of agent %q was searched %d times in the last minute", s.agent, proofsPerMinute), Hint: "wait a minute"}
	}
	b.proving.Lock() // one at a time: it takes a core and memory bandwidth from everybody
	defer b.proving.Unlock()
	matcher, p, err := s.wanted()
	if err != nil {
		return control.Proof{}, err
	}
	defer matcher.Wipe()
	began := time.Now()
	found, err := proof.Search(r.Context(), memory, matcher, controlOf(s.record.CAPEM()))
	if err != nil {
		return control.Proof{}, &control.Error{Code: control.CodeInvalid, Message: err.Error()}
	}
	p.Size, p.Present, p.Zero, p.Control = found.Size, found.Present, found.Zero, found.Control > 0
	p.Seconds = time.Since(began).Seconds()
	switch {
	case found.Hits > 0:
		p.Outcome = control.ProofLeak
	case !p.Control:
		p.Outcome = control.ProofNoControl
	}
	return p, s.proved(p)
}

// wanted returns what a proof looks for, and a clean proof that says what that is. A session that ends meanwhile wipes
// its secrets: then nothing is proved.
func (s *live) wanted() (*redact.Matcher, control.Proof, error) {
	s.values.Lock()
	defer s.values.Unlock()
	if s.ctx.Err() != nil {
		return nil, control.Proof{}, noSession(s.id)
	}
	proxied, exposed := s.secrets().Proxied()
	secrets, wipe := searched(proxied)
	defer wipe()
	for _, sec := range proxied {
		secrets = append(secrets, liveTokens(s.b.mints, &sec.Meta)...)
	}
	strong, weak := redact.Strong(secrets)
	matcher := redact.NewMatcher(strong)
	return matcher, control.Proof{
		Outcome: control.ProofClean, Secrets: len(strong), Weak: weak, Exposed: exposed,
		Encodings: len(redact.Encodings()), Windows: matcher.Windows(),
	}, nil
}

// proved records what was found. After a leak a person must look before the session goes on.
func (s *live) proved(p control.Proof) error {
	r := &audit.Record{Session: s.id, Agent: s.agent, Event: eventProof, Verdict: string(p.Outcome), Free: true}
	if err := s.b.audit.Event(r); err != nil {
		return fmt.Errorf("recording the proof: %w", err)
	}
	s.b.feed.Publish(control.Event{Kind: control.EventProof, Type: r.Event, Session: s.id, Agent: s.agent, Proof: &p})
	if p.Outcome == control.ProofLeak {
		s.suspend(&audit.Record{Session: s.id, Agent: s.agent, Event: eventProofLeak})
	}
	return nil
}

// mayProve reports whether an agent's memory may be searched now, and counts it if so.
func (b *Broker) mayProve(agent string, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	var recent []time.Time
	for _, t := range b.proofs[agent] {
		if now.Sub(t) < time.Minute {
			recent = append(recent, t)
		}
	}
	may := len(recent) < proofsPerMinute
	if may {
		recent = append(recent, now)
	}
	b.proofs[agent] = recent
	return may
}

// controlOf returns what every guest holds: a line of its session's CA certificate, whose characters are
// random. It lies in the guest's own memory and in every trust store that it wrote.
func controlOf(ca []byte) []byte {
	lines := strings.Split(strings.TrimSpace(string(ca)), "\n")
	if len(lines) < 4 {
		return []byte("no certificate") // which is in no memory, so that nothing is proved
	}
	return []byte(lines[len(lines)-3]) // whole, and of the signature
}
