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
	ending bool             // the person wants the end
	late   <-chan time.Time // when the workload has had its chance
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
		if h.ending || !s.isStarted() {
			return protocol.Exit{Code: protocol.ExitSignalBase + int(n), Signal: name}, true
		}
		h.ending = true
		if n == unix.SIGTERM {
			s.send(protocol.RunEvent{Type: protocol.RunStop})
			break
		}
		s.send(protocol.RunEvent{Type: protocol.RunSignal, Signal: name})
		h.late = time.After(intGrace)
	}
	return protocol.Exit{}, false
}

// resize tells the guest the terminal's size.
func (s *server) resize() {
	rows, cols := s.Terminal.Size()
	s.send(protocol.RunEvent{Type: protocol.RunWinsize, Rows: rows, Cols: cols})
}
