package control

import (
	"time"

	"torno.internal/protocol"
)

// A SessionRequest registers one run of an agent.
type SessionRequest struct {
	Agent     string             `json:"agent"`
	Isolation protocol.Isolation `json:"isolation"`
	Workload  protocol.Workload  `json:"workload"`
	RunToken  []byte             `json:"run_token,omitempty"` // TokenSize bytes; none: no run channel
	PeerUID   *uint32            `json:"peer_uid,omitempty"`  // uid that will connect; the broker's own if absent
	File      []byte             `json:"file,omitempty"`      // the agent file, must be trusted; none: all secrets, deny
	Policy    *AgentPolicy       `json:"policy,omitempty"`    // as parsed from File

	// For a VM that somebody else starts: exactly one of Socket and CID. Neither: the session has a Unix
	// socket of its own, for torno run.
	Socket      string `json:"socket,omitempty"`        // hybrid:///P, where P is the VMM's vsock socket (Firecracker's uds_path): the broker listens at P_618. PeerUID is the VMM's user
	CID         uint32 `json:"cid,omitempty"`           // of the VM on the kernel's vsock
	NoBootNonce bool   `json:"no_boot_nonce,omitempty"` // with CID: who comes from it first is believed, for the VM can be given no nonce

	Attach    bool `json:"attach,omitempty"`     // the VM has an init of its own, which starts torno-guest attach and the workload: Workload is empty
	OwnEgress bool `json:"own_egress,omitempty"` // the VM has a network card: credentials are added, nothing is contained

	Machine *Machine `json:"machine,omitempty"` // what torno run says of the VM that it starts
}

// A Machine is a VM as torno run starts it. It is for people: nothing is decided by it.
type Machine struct {
	Kind   string `json:"kind"`   // "microvm" or "q35"
	Accel  string `json:"accel"`  // "kvm", or "tcg", which emulates it
	Image  string `json:"image"`  // name of its root file system
	Kernel string `json:"kernel"` // release
	Memory uint64 `json:"memory"` // bytes
	CPUs   int    `json:"cpus"`
}

// A ConsoleReport is what a session's VM said last on its console. The bytes are a guest's: whoever shows them
// must escape them.
type ConsoleReport struct {
	Session string `json:"session"`
	Text    string `json:"text"` // at most MaxConsole bytes
}

// MaxConsole bounds what is kept of a session's console, in bytes.
const MaxConsole = 8 << 10

// SessionCreated tells the caller where the session's guest must connect.
type SessionCreated struct {
	ID       string   `json:"id"`
	Broker   string   `json:"broker"`               // unix:///… of the session's own socket, hybrid:///… as registered, or vsock://2:618
	Boot     []byte   `json:"boot_nonce,omitempty"` // with CID: NonceSize bytes that the VM must be given, and nobody else; its hello carries them
	Warnings []string `json:"warnings,omitempty"`
}

// SessionWaiting is the state of a session whose guest has not said hello.
const SessionWaiting = "waiting"

// SessionInfo is what sessions list and show print.
type SessionInfo struct {
	ID          string             `json:"id"`
	Agent       string             `json:"agent"`
	Isolation   protocol.Isolation `json:"isolation"`
	State       string             `json:"state"` // "waiting" (no hello yet), "live", "suspended", "ended", "revoked"
	Created     time.Time          `json:"created"`
	Ended       *time.Time         `json:"ended,omitempty"`
	Identity    string             `json:"identity"`             // how the guest is told apart, for people
	Containment string             `json:"containment"`          // what keeps the workload from going elsewhere, for people
	Weaknesses  []string           `json:"weaknesses,omitempty"` // what a person should know of it
	Argv        []string           `json:"argv"`
	Secrets     []SecretUse        `json:"secrets"`
	Requests    uint64             `json:"requests"`
	Refused     uint64             `json:"refused"`
	BytesUp     uint64             `json:"bytes_up"`
	BytesDown   uint64             `json:"bytes_down"`
	Streams     int                `json:"streams"` // open now
	Last        string             `json:"last,omitempty"`
	Grants      []Grant            `json:"grants,omitempty"` // what a person has allowed for the rest of the session
	Limits      *AgentLimits       `json:"limits,omitempty"`
	Machine     *Machine           `json:"machine,omitempty"` // of torno run
	Console     string             `json:"console,omitempty"` // what it said last; not escaped
}

// A Proof is what searching a machine's memory for the secrets of its session found, in totals. It does not
// say which was found nor where, and of how many only whether: otherwise who can show the broker a memory
// of their own making could ask it about secrets.
type Proof struct {
	Outcome   ProofOutcome `json:"outcome"`
	Secrets   int          `json:"secrets"`           // searched for
	Weak      int          `json:"weak,omitempty"`    // not, being too short for the guarantee
	Exposed   int          `json:"exposed,omitempty"` // not, being meant to be inside
	Encodings int          `json:"encodings"`
	Windows   int          `json:"windows"` // runs of the length that counts, in all encodings without escapes
	Size      int64        `json:"size"`    // bytes of memory
	Present   int64        `json:"present"` // of them, bytes that the machine has touched; the others are holes
	Zero      int64        `json:"zero"`    // of them, bytes in pages of zeros
	Control   bool         `json:"control"` // what is in every guest's memory was found in the same pass
	Seconds   float64      `json:"seconds"`
}

// A ProofOutcome says what a Proof proves.
type ProofOutcome string

// The outcomes.
const (
	ProofClean     ProofOutcome = "clean"      // no run of any secret, and the control was found
	ProofLeak      ProofOutcome = "leak"       // some run of some secret; the session is suspended
	ProofNoControl ProofOutcome = "no_control" // not even the control: nothing is proved
)

// A SecretUse names one secret version that a session uses.
type SecretUse struct {
	Name        string `json:"name"`
	Version     int    `json:"version"`
	Expose      Expose `json:"expose,omitempty"`
	Placeholder bool   `json:"placeholder,omitempty"`

	Rotation Rotation     `json:"rotation,omitempty"`
	Expires  time.Time    `json:"expires,omitzero"`
	State    VersionState `json:"state,omitempty"` // of a live session: VersionRevoked or VersionExpired, else empty

	Source  string `json:"source,omitempty"`  // of a live session: where it is kept, if that is elsewhere
	Fetched string `json:"fetched,omitempty"` // the version that was fetched there, as the source calls it
	Problem string `json:"problem,omitempty"` // why there is none: requests that need it are refused
}
