package broker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"torno.internal/broker/internal/audit"
	"torno.internal/broker/internal/policy"
	"torno.internal/broker/internal/ssh"
	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// sightings are the key exchanges that were seen on a session's open tunnels.
type sightings struct {
	mu   sync.Mutex
	open map[*sighting]struct{}
}

// A sighting is one tunnel to where an SSH key is bound. The sightings' mu guards what follows authority.
type sighting struct {
	authority protocol.Authority
	proof     ssh.Proof
	found     bool // proof is set, and nobody has asked for it
}

// begin adds a tunnel to a, which is open until end.
func (s *sightings) begin(a protocol.Authority) *sighting {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open = map[*sighting]struct{}{}
	}
	one := &sighting{authority: a}
	s.open[one] = struct{}{}
	return one
}

func (s *sightings) end(one *sighting) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, one)
}

func (s *sightings) found(one *sighting, p ssh.Proof) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one.proof, one.found = p, true
}

// take returns the other end of the open tunnel on which p was seen, once.
func (s *sightings) take(p ssh.Proof) (protocol.Authority, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for one := range s.open {
		if one.found && bytes.Equal(one.proof.Signature, p.Signature) && bytes.Equal(one.proof.HostKey, p.HostKey) {
			one.found = false
			return one.authority, true
		}
	}
	return protocol.Authority{}, false
}

// maxExchanges is how many open tunnels are looked at for one session id: each costs checking a signature.
const maxExchanges = 64

// exchanged returns the other end of the open tunnel whose key exchange has this session id, and what proves that.
func (s *sightings) exchanged(session []byte) (protocol.Authority, ssh.Proof, bool) {
	s.mu.Lock()
	var open []sighting
	for one := range s.open {
		if one.found && len(open) < maxExchanges {
			open = append(open, *one)
		}
	}
	s.mu.Unlock()
	for _, one := range open {
		if one.proof.Of(session) {
			return one.authority, one.proof, true
		}
	}
	return protocol.Authority{}, ssh.Proof{}, false
}

// watchSSH returns conn, the upstream's side of a tunnel, or what reads along where an SSH key is bound to the other
// end: then its key exchange is seen before the workload has it. done ends the sighting.
func (x *exchange) watchSSH(conn io.Reader) (from io.Reader, done func()) {
	if len(x.s.apart(control.SchemeSSH, x.authority)) == 0 {
		return conn, func() {}
	}
	one := x.s.seen.begin(x.authority)
	watch := ssh.NewWatch(func(p ssh.Proof) { x.s.seen.found(one, p) })
	return io.TeeReader(conn, watch), func() { x.s.seen.end(one) }
}

// sshKeys returns the keys that the session's agent may sign with now.
func (s *live) sshKeys() []ssh.Key {
	s.ready(func(m *control.Meta) bool { return m.Inject.Scheme == control.SchemeSSH })
	var keys []ssh.Key
	for _, sec := range s.secrets().Apart(control.SchemeSSH) {
		k, err := sshKey(sec.Meta)
		if err != nil { // they were checked when they were set
			s.log.Error("an SSH key that can't be used", "secret", sec.Meta.Name, "err", err)
			continue
		}
		k.Value = sec.Value
		keys = append(keys, k)
	}
	return keys
}

// sshKey returns what m says of a key.
func sshKey(m control.Meta) (ssh.Key, error) {
	k := ssh.Key{Name: m.Name, Version: m.Version, User: m.Inject.Param(control.ParamUser)}
	var err error
	if k.Audience, err = m.Authorities(); err != nil {
		return ssh.Key{}, err
	}
	if k.Known, err = ssh.ParseKnownHosts(m.Inject.Param(control.ParamKnownHosts)); err != nil {
		return ssh.Key{}, err
	}
	return k, nil
}

// checkSSH reports what makes an SSH key unusable that control.CheckMeta and control.CheckValue can't see.
func checkSSH(m control.Meta, value []byte) error {
	k, err := sshKey(m)
	if err != nil {
		return err
	}
	for _, a := range k.Audience {
		if !k.Known.Knows(a) {
			return fmt.Errorf("no host key of %s is known", a)
		}
	}
	return ssh.Check(value)
}

// describeSSH is what the guest needs for its SSH agent; nil: there is none.
func (s *live) describeSSH() *protocol.SSH {
	keys := s.sshKeys()
	if len(keys) == 0 {
		return nil
	}
	h := &protocol.SSH{KnownHosts: []string{}}
	for _, k := range keys {
		for _, line := range k.Known.Lines() {
			if !slices.Contains(h.KnownHosts, line) {
				h.KnownHosts = append(h.KnownHosts, line)
			}
		}
	}
	return h
}

// serveAgent answers one client of the guest's SSH agent until it ends.
func (s *live) serveAgent(st *stream) (bool, error) {
	if len(s.sshKeys()) == 0 {
		_, err := respondReason(st, protocol.ReasonUnsupported)
		return false, err
	}
	if err := st.w.WriteResponse(&protocol.Response{Status: 200}); err != nil {
		return false, err
	}
	if err := st.w.Flush(); err != nil {
		return false, err
	}
	agent := ssh.Agent{
		Keys: s.sshKeys, Seen: s.seen.take, Exchanged: s.seen.exchanged, Record: s.recordLogin, Refused: s.refusedLogin,
		Ask: func(u ssh.Use) (string, error) { return s.askLogin(st, u) },
	}
	if err := agent.Serve(agentWire{st}); err != nil {
		return false, err
	}
	return false, st.w.Close(nil)
}

// An agentWire is a stream that sends what is written to it at once.
type agentWire struct{ st *stream }

func (f agentWire) Read(p []byte) (int, error) { return f.st.r.Read(p) }

func (f agentWire) Write(p []byte) (int, error) {
	n, err := f.st.w.Write(p)
	if err != nil {
		return n, err
	}
	return n, f.st.w.Flush()
}

// askLogin has a person decide on a login whose client has not named its connection, and returns what they said, for the
// audit.
func (s *live) askLogin(st *stream, u ssh.Use) (string, error) {
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	s.watch.add(st, aborterFunc(cancel))
	defer s.watch.remove(st)
	said, outcome, err := s.askPerson(ctx, control.Approval{
		Session: s.id, Agent: s.agent, Method: "CONNECT", Scheme: control.SchemeSSH, Authority: u.Host.String(), List: policy.ListAsk,
		Rule: "a login as " + u.User + " by a client that does not name its connection", Secret: u.Key.Name, Version: u.Key.Version,
	})
	switch {
	case err != nil:
		return "", err
	case outcome != askAllowed:
		return "", errors.New("a person was asked: " + outcome)
	case s.suspended.Load():
		return "", errors.New("the session is suspended")
	}
	return said, nil
}

// recordLogin records a login before it is signed: what can't be recorded does not happen.
func (s *live) recordLogin(u ssh.Use) error {
	if s.suspended.Load() {
		return errors.New("the session is suspended")
	}
	if sec, ok := s.secrets().Current(u.Key.Name); ok && sec.Used != nil {
		sec.Used(time.Now())
	}
	return s.b.audit.Event(&audit.Record{
		Session: s.id, Agent: s.agent, Event: eventSSHSigned, Scheme: control.SchemeSSH, Authority: u.Host.String(),
		By: "user " + u.User, Secret: u.Key.Name, Version: u.Key.Version, Approval: u.Said,
	})
}

func (s *live) refusedLogin(r ssh.Refusal) {
	s.log.Info("SSH signature refused", "authority", r.Host.String(), "err", r.Err)
	rec := &audit.Record{Session: s.id, Agent: s.agent, Event: eventSSHRefused, Scheme: control.SchemeSSH, Reason: r.Err.Error()}
	if r.Host.Host != "" {
		rec.Authority = r.Host.String()
	}
	if err := s.b.audit.Event(rec); err != nil && !errors.Is(err, audit.ErrBudget) {
		s.log.Error("recording a refusal", "err", err)
	}
}
