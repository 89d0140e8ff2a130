package run

import (
	"errors"

	"torno.internal/protocol"
)

var errNoWorkspace = errors.New("there is no workspace")

// sendWorkspace sends what the workload starts with.
func (s *server) sendWorkspace(st *stream) error {
	if s.SendWorkspace == nil {
		return errors.Join(st.answer(404), errNoWorkspace)
	}
	if err := st.head(); err != nil {
		return err
	}
	if err := s.SendWorkspace(st.w); err != nil {
		return err // the connection closes without an end, which is not taken for one
	}
	return st.w.Close(nil)
}

// receiveWorkspace takes what has become of it. The workload has ended: keys are signals again.
func (s *server) receiveWorkspace(st *stream) error {
	if s.ReceiveWorkspace == nil {
		return errors.Join(st.answer(404), errNoWorkspace)
	}
	s.mu.Lock()
	s.back = true
	s.mu.Unlock()
	s.restore()
	if err := s.ReceiveWorkspace(st.r); err != nil {
		return err
	}
	var trailer protocol.Fields
	if err := st.r.ReadTrailer(&trailer); err != nil {
		return err
	}
	return st.answer(200)
}

// isBack reports whether the workspace comes back already.
func (s *server) isBack() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.back
}

// giveUp ends the workload at once, and leaves the guest the time to send the workspace.
func (s *server) giveUp() {
	s.send(protocol.RunEvent{Type: protocol.RunSignal, Signal: "KILL"})
	if s.Say != nil {
		s.Say("copying the workspace back; ^C once more gives that up")
	}
}
