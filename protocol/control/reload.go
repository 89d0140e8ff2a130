package control

// PathReload has the broker read its file again.
const PathReload = "/v1/reload" // POST → Reloaded

// Reloaded says what reading the operator's file again has changed.
type Reloaded struct {
	Narrowed int      `json:"narrowed"`          // live sessions that are held to it besides what they began with, and whose open exchanges were cut
	Changed  []string `json:"changed,omitempty"` // keys that have changed and hold from now on: agents.NAME, limits.KEY
	Restart  []string `json:"restart,omitempty"` // keys that have changed and were ignored: they are read at the start alone
}
