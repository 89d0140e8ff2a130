package control

// PathReload has the broker read its file again.
const PathReload = "/v1/reload" // POST → Reloaded

// Reloaded says what reading the operator's file again has changed.
type Reloaded struct {
	Narrowed int      `json:"narrowed"`          // live sessions that are held to it besides what they began with, and whose open exchanges were cut
	Restart  []string `json:"restart,omitempty"` // tables that have changed and are read at the start alone
}
