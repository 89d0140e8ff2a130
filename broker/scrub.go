package broker

import (
	"cmp"
	"errors"
	"fmt"
	"io"

	"torno.internal/broker/internal/audit"
	"torno.internal/broker/internal/decode"
	"torno.internal/broker/internal/redact"
	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// Default limits on how often answers may repeat a secret, in masked runs. An honest host never does; one
// that does it again and again is being used to guess.
const (
	defaultRunsPerResponse = 8
	defaultRunsPerSession  = 32
)

// maxDecoding is how many coded answers, and coded requests whose content is replaced, of one session are decoded at
// once: each may need decode.MaxMemory. Nobody asks for such an answer, so few come.
const maxDecoding = 8

// errReflected ends an exchange whose answer repeats secrets too often.
var errReflected = protocol.Refuse(protocol.ReasonReflection, errors.New("the answer repeats secrets too often"))

// reflected counts runs that were masked. Beyond the limits the session is suspended and the exchange ends.
func (x *exchange) reflected(runs int) error {
	if runs == 0 {
		return nil
	}
	x.outcome.Masked += runs
	total := x.s.stats.masked.Add(int64(runs))
	began, now := x.s.operator.Limits, x.s.b.operator.Load().Limits
	if x.outcome.Masked <= lower(began.ReflectionsPerResponse, now.ReflectionsPerResponse, defaultRunsPerResponse) &&
		total <= int64(lower(began.ReflectionsPerSession, now.ReflectionsPerSession, defaultRunsPerSession)) {
		return nil
	}
	x.s.suspend(x.record())
	return errReflected
}

// lower returns the lower of two limits, either of which is otherwise where it is 0.
func lower(a, b, otherwise int) int { return min(cmp.Or(a, otherwise), cmp.Or(b, otherwise)) }

// suspend refuses the session's requests until a person lets it go on, and cuts what is open: a WebSocket or an upload
// would be of use for as long as it lasts.
func (s *live) suspend(r *audit.Record) {
	if s.suspended.Swap(true) {
		return
	}
	s.cut(protocol.ReasonReflection, nil)
	if err := s.record.Suspend(true); err != nil {
		s.log.Error("storing that the session is suspended", "err", err)
	}
	if r.Event == "" {
		r.Event, r.Reason = eventReflection, protocol.ReasonReflection.String()
	}
	r.Free = true
	s.log.Warn("the session is suspended", "why", r.Event, "authority", r.Authority)
	s.b.recordOwn(r)
}

// unsuspend lets a suspended session go on, with a new count.
func (s *live) unsuspend() error {
	if !s.suspended.Load() {
		return &control.Error{Code: control.CodeConflict, Message: fmt.Sprintf("session %s is not suspended", s.id), Hint: "torno sessions list"}
	}
	if err := s.record.Suspend(false); err != nil {
		return err
	}
	s.stats.masked.Store(0)
	s.suspended.Store(false)
	return nil
}

// checkHead scrubs a response's fields and learns how its content is coded.
func (x *exchange) checkHead(resp *protocol.Response) (err error) {
	if x.guarded == nil {
		return nil
	}
	x.regard()
	if resp.Fields, err = x.scrubFields(resp.Fields); err != nil || resp.Interim() {
		return err
	}
	coding, err := decode.Coding(resp.Fields)
	switch {
	case err != nil:
		return protocol.Refuse(protocol.ReasonCodedContent, err)
	case coding == "":
		return nil
	case resp.Status == 206 && x.guarded.kept: // a part can't be decoded; nothing of ours can be in it, and it is searched as it is
		return nil
	case resp.Status == 206:
		return protocol.Refuse(protocol.ReasonCodedContent, fmt.Errorf("part of content coded %q", coding))
	}
	if x.s.decoding.Add(1) > maxDecoding {
		x.s.decoding.Add(-1)
		return protocol.Refuse(protocol.ReasonStreamsExhausted, errors.New("too many coded answers at once"))
	}
	x.coding = coding
	resp.Fields = redact.DropDescriptions(resp.Fields)
	return nil
}

// masked returns err as it may stand in a log: errors quote names that hosts say, and a host may say what it was sent.
func (x *exchange) masked(err error) error {
	if err == nil || x.guarded == nil {
		return err
	}
	x.regard()
	text, runs := x.guarded.matcher.Text(err.Error())
	if runs == 0 {
		return err
	}
	return errors.New(text)
}

// A scrubbed content is decoded, if it was coded, and masked.
type scrubbed struct {
	x     *exchange
	from  io.Reader
	masks *masks
}

// scrub returns r as the workload may have it, or nil where that is as it is.
func (x *exchange) scrub(r io.Reader) *scrubbed {
	if x.guarded == nil || x.guarded.matcher.Empty() && x.coding == "" && !x.s.follows {
		return nil
	}
	s := &scrubbed{x: x, from: r, masks: x.masks()}
	if x.coding != "" {
		s.from = decode.NewReader(r, x.coding)
	}
	return s
}

func (s *scrubbed) Read(p []byte) (int, error) {
	n, err := s.from.Read(p)
	runs, merr := s.masks.mask(p[:n])
	if merr == nil {
		merr = s.x.reflected(runs)
	}
	if merr != nil {
		clear(p[:n])
		return 0, merr
	}
	return n, err
}

// close wipes what the scanner remembers.
func (s *scrubbed) close() {
	s.masks.close()
	if c, ok := s.from.(io.Closer); ok {
		_ = c.Close()
	}
}

// scrubTrailer scrubs a response's trailer section.
func (x *exchange) scrubTrailer(f protocol.Fields) (protocol.Fields, error) {
	if x.guarded == nil || len(f) == 0 {
		return f, nil
	}
	f, err := x.scrubFields(f)
	if x.coding != "" {
		f = redact.DropDescriptions(f)
	}
	return f, err
}
