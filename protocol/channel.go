package protocol

import (
	"encoding/json"
	"time"
)

// Paths of channel requests (scheme torno, authority broker).
const (
	PathHello  = "/v1/hello"
	PathLeaf   = "/v1/leaf"
	PathEvents = "/v1/events"
	PathSSH    = "/v1/ssh"
	PathSign   = "/v1/sign"
)

// Isolation says what stands between the workload and the host's kernel.
type Isolation string

// The isolations.
const (
	IsolationMicroVM   Isolation = "microvm"
	IsolationNamespace Isolation = "namespace"
)

// NonceSize is the length in bytes of a hello's nonce.
const NonceSize = 32

// A HelloRequest is the first thing that a guest says in a session. The same nonce gets the same
// answer until the token of that answer is first used; after that hello is refused for ever.
type HelloRequest struct {
	Nonce []byte `json:"nonce"`          // NonceSize random bytes
	Guest string `json:"guest"`          // the guest's build, for people
	Boot  []byte `json:"boot,omitempty"` // the boot nonce, where the machine was given one
}

// A HelloResponse tells the guest all that it needs to know.
type HelloResponse struct {
	Agent     string    `json:"agent"`
	Session   string    `json:"session"`
	Token     []byte    `json:"token"` // TokenSize bytes, for channel and forward streams
	Isolation Isolation `json:"isolation"`
	Time      time.Time `json:"time"`         // the host's clock
	CA        string    `json:"ca"`           // PEM; the session's CA certificate, trusted in this VM alone
	Env       []string  `json:"env"`          // KEY=VALUE: exposed secrets and placeholders
	Workload  Workload  `json:"workload"`     // what to start
	RunToken  []byte    `json:"run_token"`    // TokenSize bytes for run streams; empty: no run channel, stdio is the console
	Capture   Capture   `json:"capture_plan"` // how addresses and names are set up

	OwnEgress bool `json:"own_egress,omitempty"` // the machine may have a network card, so that nothing contains the workload

	SSH *SSH `json:"ssh,omitempty"` // nil: the session has no SSH key

	// Tunnels are host:port, or *.host:port for all below the host, of hosts that a tunnel rule names: TLS to them is not ended in the
	// guest, which asks for a tunnel instead. At most MaxTunnels.
	Tunnels []string `json:"tunnels,omitempty"`

	Status json.RawMessage `json:"status,omitempty"` // what the workload may know of its session, for StatusFile
}

// SSH is what a guest needs to offer an SSH agent: clients of a socket of its own talk to the broker by PathSSH.
type SSH struct {
	KnownHosts []string `json:"known_hosts"` // lines of known_hosts (sshd(8)), for the machine's clients
}

// MaxTunnels bounds HelloResponse.Tunnels.
const MaxTunnels = 128

// StatusFile is where the workload finds HelloResponse.Status.
const StatusFile = "/run/torno/status"

// A Workload is the process that the guest starts once its self-test has passed.
type Workload struct {
	Argv []string `json:"argv"` // argv[0] is looked up in PATH
	Env  []string `json:"env"`  // KEY=VALUE from the person who runs it, such as TERM and LANG
	Dir  string   `json:"dir"`  // working directory; empty: the user's home
	User string   `json:"user"` // "agent" or "root"
	TTY  bool     `json:"tty"`  // run on a pseudo-terminal
	Rows uint16   `json:"rows"` // its size, with TTY
	Cols uint16   `json:"cols"`

	// Workspace is a directory that is filled from PathWorkspaceIn before the workload starts, belongs to its
	// user, and goes back by PathWorkspaceOut after its end: an absolute path; empty: none.
	Workspace string `json:"workspace,omitempty"`
}

// Users that a workload may run as.
const (
	UserAgent = "agent"
	UserRoot  = "root"
)

// Capture is the plan by which every connection in the VM leads to the guest. The zero value of each
// field means the default given beside it.
type Capture struct {
	Addr4     string `json:"addr4"`      // own IPv4 address on lo: 192.0.2.2
	Addr6     string `json:"addr6"`      // own IPv6 address on lo: 2001:db8::2
	Names4    string `json:"names4"`     // prefix of synthetic A answers: 100.64.0.0/10
	Names6    string `json:"names6"`     // prefix of synthetic AAAA answers: fd74:6f72:6e6f::/48
	ProxyPort uint16 `json:"proxy_port"` // explicit proxy on 127.0.0.1: 3128, only if free
}

// A LeafRequest asks for one certificate for one name or one address.
type LeafRequest struct {
	Name string `json:"name"` // an LDH name, or the IP literal that was dialled
	Key  []byte `json:"key"`  // P-256 public key, PKIX DER
}

// A LeafResponse carries the certificate; the CA's key stays on the host.
type LeafResponse struct {
	Certificate []byte    `json:"certificate"` // DER
	NotAfter    time.Time `json:"not_after"`
}

// An Event is one line of JSON in the content of the response to GET /v1/events, host to guest.
type Event struct {
	Type EventType `json:"type"`
	Time time.Time `json:"time"` // the host's clock
}

// EventType is the type of an Event. A guest ignores types that it does not know.
type EventType string

// The events.
const (
	EventClock    EventType = "clock"    // correct the clock; sent on subscription, then every few seconds
	EventRevoke   EventType = "revoke"   // cut every open connection of the workload
	EventShutdown EventType = "shutdown" // stop the workload in an orderly way
)
