package protocol

// Paths of run requests (scheme torno, authority run), all opened by the guest on the run port.
const (
	PathStdin     = "/v1/stdin"  // GET: content is the workload's standard input; its end is end of file
	PathStdout    = "/v1/stdout" // POST: content is standard output, or the terminal's with a TTY
	PathStderr    = "/v1/stderr" // POST: content is standard error; not opened with a TTY
	PathExit      = "/v1/exit"   // POST: one Exit as JSON; the last request of a run
	PathRunEvents = "/v1/events" // GET: content is one RunEvent as JSON a line

	PathWorkspaceIn  = "/v1/workspace/in"  // GET: content is the workspace as it goes in, an archive of protocol/workspace
	PathWorkspaceOut = "/v1/workspace/out" // POST: content is what has changed of it, the same way

	// POST, a number in decimal behind it: one connection to a published port. Request content is what
	// the server inside says, response content what the client does.
	PathPublished = "/v1/published/"
)

// A RunEvent is something that the person at the terminal did, host to guest.
type RunEvent struct {
	Type   RunEventType `json:"type"`
	Signal string       `json:"signal,omitempty"` // with signal: "INT", "TERM", "HUP", "QUIT", "USR1", "USR2", "KILL"
	Rows   uint16       `json:"rows,omitempty"`   // with winsize
	Cols   uint16       `json:"cols,omitempty"`
	Port   uint16       `json:"port,omitempty"`       // with connect: where the server listens inside
	Number uint64       `json:"connection,omitempty"` // and what to append to PathPublished
}

// RunEventType is the type of a RunEvent. A guest ignores types that it does not know.
type RunEventType string

// The run events.
const (
	RunSignal  RunEventType = "signal"  // deliver Signal to the workload's process group
	RunWinsize RunEventType = "winsize" // resize the terminal
	RunStop    RunEventType = "stop"    // TERM, then KILL after a grace period, then power off
	RunConnect RunEventType = "connect" // somebody has connected to a published port: lead them to Port
)

// An Exit says how the workload ended. Exactly one of Signal and Error is set, or neither.
type Exit struct {
	Code   int    `json:"code"`             // as a shell reports it: 128+n for signal n, 125 torno failed, 126, 127
	Signal string `json:"signal,omitempty"` // the signal that ended it
	Error  string `json:"error,omitempty"`  // why it could not be started, for people
	Hint   string `json:"hint,omitempty"`   // what they can do about it
}

// Exit codes of torno run that are not the workload's own.
const (
	ExitFailed        = 125 // torno itself failed
	ExitNotExecutable = 126
	ExitNotFound      = 127
	ExitSignalBase    = 128
)
