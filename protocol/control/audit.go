package control

import "time"

// An AuditRecord is one line of the audit as docs/audit.md describes it. Members that the line lacks are zero. Text may
// hold control characters and bytes that are not UTF-8, which were escaped in the line: escape them again for a
// terminal.
type AuditRecord struct {
	Seq  uint64    `json:"seq"`
	Time time.Time `json:"time"`
	Prev string    `json:"prev"` // SHA-256 of the line before, hex
	Type string    `json:"type"` // one of the constants below

	Begin        uint64   `json:"begin,omitempty"` // of an end: the number of its beginning
	Session      string   `json:"session,omitempty"`
	Agent        string   `json:"agent,omitempty"`
	Event        string   `json:"event,omitempty"` // of an event: what happened
	By           string   `json:"by,omitempty"`    // of an event: the process that asked for it
	Method       string   `json:"method,omitempty"`
	Protocol     string   `json:"protocol,omitempty"` // "websocket"
	Scheme       string   `json:"scheme,omitempty"`
	Authority    string   `json:"authority,omitempty"`
	Path         string   `json:"path,omitempty"`        // with the query; credentials are masked
	PathBytes    int64    `json:"path_bytes,omitempty"`  // of a path that was too long to keep
	PathSHA256   string   `json:"path_sha256,omitempty"` // of the whole of it, hex
	Fields       []string `json:"fields,omitempty"`      // "name" or "name: value"
	Dialled      string   `json:"dialled,omitempty"`     // the address that the workload connected to
	Verdict      string   `json:"verdict,omitempty"`
	List         string   `json:"list,omitempty"`
	Rule         string   `json:"rule,omitempty"`
	Approval     string   `json:"approval,omitempty"` // of a request that a person was asked about
	Reason       string   `json:"reason,omitempty"`
	Secret       string   `json:"secret,omitempty"`
	Version      int      `json:"version,omitempty"`
	Fetched      string   `json:"fetched,omitempty"`      // the version of Secret, in the words of the source that it was fetched from
	Plugin       string   `json:"plugin,omitempty"`       // that the event is about
	Placeholders int      `json:"placeholders,omitempty"` // how many stood in the request's head; of an end: in its content
	SHA256       string   `json:"sha256,omitempty"`       // of what the event is about, hex
	Commit       uint64   `json:"commit,omitempty"`       // of the store, which the event is about
	Manifest     string   `json:"manifest,omitempty"`     // SHA-256 of the store's manifest after it, hex
	Through      uint64   `json:"through,omitempty"`      // of audit_deleted: the last record that went
	Count        int64    `json:"count,omitempty"`
	Interrupted  bool     `json:"interrupted,omitempty"` // the broker died meanwhile
	Status       int      `json:"status,omitempty"`
	Up           int64    `json:"up,omitempty"`      // bytes of content to the upstream
	Down         int64    `json:"down,omitempty"`    // bytes of content from it
	DialMicros   int64    `json:"dial_us,omitempty"` // microseconds until a new connection stood
	HeadMicros   int64    `json:"head_us,omitempty"` // microseconds until the response's head was there
	Micros       int64    `json:"us,omitempty"`      // microseconds that it took in all
	Upstream     string   `json:"upstream,omitempty"`
	Via          string   `json:"via,omitempty"` // the proxy that it was, host:port
	Masked       int      `json:"masked,omitempty"`
	Aborted      bool     `json:"aborted,omitempty"`

	Open       []uint64 `json:"open,omitempty"`      // of a checkpoint that begins a segment: exchanges without an end so far
	OpenMore   int64    `json:"open_more,omitempty"` // how many more there are
	Ed25519Key string   `json:"ed25519_key,omitempty"`
	MLDSA65Key string   `json:"mldsa65_key,omitempty"`
	Ed25519Sig string   `json:"ed25519,omitempty"` // base64
	MLDSA65Sig string   `json:"mldsa65,omitempty"`
}

// The types of an AuditRecord.
const (
	AuditBegin      = "begin"      // an exchange is about to happen
	AuditEnd        = "end"        // it has ended
	AuditRefused    = "refused"    // a request that did not happen
	AuditEvent      = "event"      // something else, as Event says
	AuditCheckpoint = "checkpoint" // signs all that stands before it
)

// AuditKeys are the public keys that an audit's checkpoints are signed for. Both must verify.
type AuditKeys struct {
	Ed25519 []byte `json:"ed25519"` // 32 bytes
	MLDSA65 []byte `json:"mldsa65"` // 1952 bytes
}

// An AuditVerdict is the result of checking an audit.
type AuditVerdict struct {
	OK          bool      `json:"ok"`
	First       uint64    `json:"first"`                 // number of the first record that is there
	Last        uint64    `json:"last"`                  // number of the last good record
	Records     uint64    `json:"records"`               // good records that are there
	Head        string    `json:"head"`                  // hash of the last good record, hex
	Time        time.Time `json:"time"`                  // of the last good record
	Signed      uint64    `json:"signed"`                // number of the last checkpoint whose signatures were verified; 0: no keys were given
	Checkpoints int       `json:"checkpoints"`           // how many were verified
	Keys        []string  `json:"keys,omitempty"`        // ids of the public keys that they were verified with
	Backwards   int       `json:"backwards,omitempty"`   // how often the clock was set back, each time with a record of it
	Interrupted int       `json:"interrupted,omitempty"` // exchanges that the broker's death cut off
	Notes       []string  `json:"notes,omitempty"`       // what a person should know, though nothing is wrong

	Problem string `json:"problem,omitempty"` // what is wrong with the first bad record
	Record  uint64 `json:"record,omitempty"`  // its number, as it should be
	File    string `json:"file,omitempty"`    // where it stands
	Offset  int64  `json:"offset,omitempty"`  // bytes from the file's beginning
}

// An AuditCheck says what to check an audit against.
type AuditCheck struct {
	Keys  *AuditKeys `json:"keys,omitempty"`  // none: signatures are not verified
	Since []string   `json:"since,omitempty"` // checkpoints that were kept elsewhere, each a line
}

// An AuditFilter says which exchanges and events are wanted. Zero members want any.
type AuditFilter struct {
	Agent   string    `json:"agent,omitempty"`
	Session string    `json:"session,omitempty"`
	Host    string    `json:"host,omitempty"`   // "example.org", "*.example.org", either with a port
	Method  string    `json:"method,omitempty"` // upper case
	Status  string    `json:"status,omitempty"` // "404", "4xx", "400-499"
	Verdict string    `json:"verdict,omitempty"`
	Secret  string    `json:"secret,omitempty"`
	Event   string    `json:"event,omitempty"`
	Reason  string    `json:"reason,omitempty"`
	Since   time.Time `json:"since,omitzero"`
	Until   time.Time `json:"until,omitzero"`
}
