package control

import "time"

// An AuditRecord is one line of the audit, for showing. Members that the line lacks are zero. Text may
// hold control characters that were escaped in the line: escape them again for a terminal.
type AuditRecord struct {
	Seq         uint64    `json:"seq"`
	Time        time.Time `json:"time"`
	Prev        string    `json:"prev"` // SHA-256 of the line before, hex
	Type        string    `json:"type"` // "begin", "end", "event"
	Session     string    `json:"session"`
	Agent       string    `json:"agent"`
	Event       string    `json:"event"`
	Method      string    `json:"method"`
	Scheme      string    `json:"scheme"`
	Authority   string    `json:"authority"`
	Path        string    `json:"path"`
	Fields      []string  `json:"fields"` // "name" or "name: value"
	Dialled     string    `json:"dialled"`
	Verdict     string    `json:"verdict"`
	List        string    `json:"list"`
	Rule        string    `json:"rule"`
	Reason      string    `json:"reason"`
	Secret      string    `json:"secret"`
	Version     int       `json:"version"`
	Commit      uint64    `json:"commit"`   // of an event about the store: the number of its commit
	Manifest    string    `json:"manifest"` // SHA-256 of the store's manifest after it, hex
	Begin       uint64    `json:"begin"`    // of an end: the line that it ends
	Status      int       `json:"status"`
	Up          int64     `json:"up"`   // bytes of content to the upstream
	Down        int64     `json:"down"` // bytes of content from it
	Micros      int64     `json:"us"`   // duration in microseconds
	Upstream    string    `json:"upstream"`
	Via         string    `json:"via"` // the proxy that it was, host:port
	Aborted     bool      `json:"aborted"`
	Masked      int       `json:"masked"`      // runs of secrets that were masked in the response
	Interrupted bool      `json:"interrupted"` // the broker died meanwhile
	Count       int64     `json:"count"`
}
