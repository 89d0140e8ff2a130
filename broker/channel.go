package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// clockInterval is how often a guest is told the host's time: it may have been paused, or restored from a
// snapshot, without knowing.
const clockInterval = 10 * time.Second

// channel serves one channel request: hello on hello streams, everything else on channel streams. A
// forward stream never comes here, whatever scheme its requests carry.
func (s *live) channel(ctx context.Context, st *stream, kind protocol.Kind) (reusable bool, err error) {
	req := &st.req
	if kind == protocol.KindChannel && req.Scheme == protocol.Scheme && req.Authority == protocol.BrokerAuthority && req.Method == "POST" && req.Path == protocol.PathSSH {
		return s.serveAgent(st) // its content is no JSON, and has no end yet
	}
	body, err := readBody(st)
	switch {
	case err != nil:
		return false, err
	case req.Scheme != protocol.Scheme || req.Authority != protocol.BrokerAuthority:
		return respondReason(st, protocol.ReasonBadRequest)
	case kind == protocol.KindHello && req.Method == "POST" && req.Path == protocol.PathHello:
		return respond(st, body, s.hello)
	case kind == protocol.KindChannel && req.Method == "POST" && req.Path == protocol.PathLeaf:
		return respond(st, body, s.leaf)
	case kind == protocol.KindChannel && req.Method == "POST" && req.Path == protocol.PathSign:
		return respond(st, body, func(ask protocol.SignRequest) (*protocol.SignResponse, error) { return s.sign(st, &ask) })
	case kind == protocol.KindChannel && req.Method == "GET" && req.Path == protocol.PathEvents:
		return false, s.sendEvents(ctx, st)
	}
	s.log.Warn("channel request refused", "kind", kind.String(), "method", req.Method, "path", req.Path)
	return respondReason(st, protocol.ReasonUnsupported)
}

// readBody reads the JSON of one channel request, at most MaxChannelBody bytes of it.
func readBody(st *stream) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(st.r, protocol.MaxChannelBody+1))
	if err != nil {
		return nil, err
	}
	if len(body) > protocol.MaxChannelBody {
		return nil, fmt.Errorf("channel request of more than %d bytes", protocol.MaxChannelBody)
	}
	var trailer protocol.Fields
	return body, st.r.ReadTrailer(&trailer)
}

// respond decodes a request strictly, calls f and answers with its result as JSON, or with the reason
// that its error carries.
func respond[Req, Resp any](st *stream, body []byte, f func(Req) (Resp, error)) (bool, error) {
	var req Req
	if err := protocol.DecodeStrict(body, &req); err != nil {
		return respondReason(st, protocol.ReasonBadRequest)
	}
	resp, err := f(req)
	if err != nil {
		return respondReason(st, reasonOf(err))
	}
	b, err := json.Marshal(resp)
	if err != nil {
		return false, err
	}
	head := protocol.Response{Status: 200, Fields: protocol.Fields{{Name: "content-type", Value: "application/json"}}}
	return write(st, &head, b)
}

func respondReason(st *stream, reason protocol.Reason) (bool, error) {
	resp, content := protocol.Refusal(reason)
	return write(st, &resp, content)
}

func write(st *stream, resp *protocol.Response, content []byte) (bool, error) {
	if err := st.w.WriteResponse(resp); err != nil {
		return false, err
	}
	if _, err := st.w.Write(content); err != nil {
		return false, err
	}
	return true, st.w.Close(nil)
}

// hello answers with all that the guest needs. The exposed values are in it: they are what the
// operator chose to show.
func (s *live) hello(req protocol.HelloRequest) (protocol.HelloResponse, error) {
	err := s.record.CheckBoot(req.Boot)
	var token protocol.Token
	if err == nil {
		token, err = s.record.Hello(req.Nonce)
	}
	if err != nil {
		s.log.Warn("hello refused", "guest", req.Guest, "err", err)
		s.note("hello_refused", protocol.ReasonSessionEnded.String(), false)
		return protocol.HelloResponse{}, protocol.Refuse(protocol.ReasonSessionEnded, err)
	}
	env, err := s.env()
	if err != nil {
		return protocol.HelloResponse{}, protocol.Refuse(protocol.ReasonInternal, err)
	}
	s.log.Info("hello", "guest", req.Guest)
	s.note(eventHello, "", false)
	return protocol.HelloResponse{
		Agent:     s.agent,
		Session:   s.id,
		Token:     token[:],
		Isolation: s.record.Isolation(),
		Time:      time.Now(),
		CA:        string(s.record.CAPEM()),
		Env:       env,
		Workload:  s.record.Workload(),
		RunToken:  s.record.RunToken(),
		Capture:   protocol.Capture{},
		OwnEgress: s.record.OwnEgress(),
		SSH:       s.describeSSH(),
		Tunnels:   s.terms.Load().policy.Tunnels(),
		Status:    s.status(),
	}, nil
}

// status is what the workload may know of its session: all of it is what it could find out by trying.
func (s *live) status() json.RawMessage {
	type use struct {
		Name     string   `json:"name"`
		Audience []string `json:"audience,omitempty"`
		Expose   string   `json:"expose,omitempty"`
	}
	file := s.record.Policy()
	status := struct {
		Agent   string         `json:"agent"`
		Session string         `json:"session"`
		Secrets []use          `json:"secrets"`
		Egress  control.Egress `json:"egress"`
	}{s.agent, s.id, []use{}, file.Egress}
	for _, m := range s.secrets().Metas() {
		status.Secrets = append(status.Secrets, use{m.Name, m.Audience, string(m.Expose)})
	}
	b, err := json.Marshal(status)
	if err != nil {
		s.log.Error("describing the session to its workload", "err", err)
	}
	return b
}

// leaf signs one leaf certificate with the session's CA.
func (s *live) leaf(req protocol.LeafRequest) (protocol.LeafResponse, error) {
	der, notAfter, err := s.record.IssueLeaf(req.Name, req.Key)
	if err != nil {
		s.log.Warn("leaf refused", "name", req.Name, "err", err)
		var refused *protocol.RefusedError
		if !errors.As(err, &refused) {
			err = protocol.Refuse(protocol.ReasonBadAuthority, err)
		}
		return protocol.LeafResponse{}, err
	}
	return protocol.LeafResponse{Certificate: der, NotAfter: notAfter}, nil
}

// sendEvents writes the host's events, one line of JSON each, until the stream or the session ends. Every guest has such a
// stream and most are idle, so what waits here is kept small, the stack as well.
func (s *live) sendEvents(ctx context.Context, st *stream) error {
	head := protocol.Response{Status: 200, Fields: protocol.Fields{{Name: "content-type", Value: "application/x-ndjson"}}}
	if err := st.w.WriteResponse(&head); err != nil {
		return err
	}
	st.r.Rest()
	ticker := time.NewTicker(clockInterval)
	defer ticker.Stop()
	for event := protocol.EventClock; ; {
		if err := sendEvent(st, event); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return st.w.Close(nil)
		case <-ticker.C:
			event = protocol.EventClock
		case event = <-s.events:
		}
	}
}

// sendEvent writes one event.
func sendEvent(st *stream, event protocol.EventType) error {
	b, err := json.Marshal(protocol.Event{Type: event, Time: time.Now()})
	if err == nil {
		_, err = st.w.Write(append(b, '\n'))
	}
	if err == nil {
		err = st.w.Flush()
	}
	st.w.Rest()
	return err
}
