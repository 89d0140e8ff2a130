package run

import (
	"os"
	"time"

	"golang.org/x/sys/unix"

	"torno.internal/protocol"
)

// Signals are those that Config.Signals should deliver.
var Signals = []os.Signal{
	unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH,
}

// A handler turns signals into events.
type handler struct {
	times int              // how often the person has asked for the end
	late  <-chan time.Time // when the workload has had its chance
}

// handle acts on one signal; now is true if it ends the run at once. With a terminal ^C is a byte of
// the input and never comes here, but before the workload has it.
func (h *handler) handle(s *server, sig os.Signal) (exit protocol.Exit, now bool) {
	n, ok := sig.(unix.Signal)
	if !ok {
		return protocol.Exit{}, false
	}
	name := unix.SignalName(n)[len("SIG"):]
	switch n {
	case unix.SIGWINCH:
		if s.Terminal != nil {
			s.resize()
		}
	case unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2:
		s.send(protocol.RunEvent{Type: protocol.RunSignal, Signal: name})
	case unix.SIGINT, unix.SIGTERM, unix.SIGHUP:
		h.times++
		switch enough := s.enough(); {
		case !s.isStarted(), h.times >= enough:
			return protocol.Exit{Code: protocol.ExitSignalBase + int(n), Signal: name}, true
		case h.times == enough-1 && enough > 2, s.isBack():
			h.times, h.late = enough-1, nil
			s.giveUp()
			return protocol.Exit{}, false
		}
		if n == unix.SIGTERM {
			s.send(protocol.RunEvent{Type: protocol.RunStop})
			break
		}
		s.send(protocol.RunEvent{Type: protocol.RunSignal, Signal: name})
		h.late = time.After(intGrace)
	}
	return protocol.Exit{}, false
}

// enough is which time of asking ends the run at once. With a workspace the time before it ends the
// workload at once, and what that has written is not lost.
func (s *server) enough() int {
	if s.SendWorkspace != nil {
		return 3
	}
	return 2
}

// resize tells the guest the terminal's size.
func (s *server) resize() {
	rows, cols := s.Terminal.Size()
	s.send(protocol.RunEvent{Type: protocol.RunWinsize, Rows: rows, Cols: cols})
}
