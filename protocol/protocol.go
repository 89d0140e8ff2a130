// Package protocol defines what torno's guest and broker say to each other: the preface that opens
// every stream, the channel and run requests carried on it, the closed table of refusal reasons, and
// every limit either side holds the other to.
//
// SPEC.md in this directory is normative; this package is one implementation of it. Content travels
// as Binary HTTP (RFC 9292), implemented in protocol/bhttp.
package protocol

import "time"

// Version is the protocol version this build speaks; MinVersion is the oldest that it still accepts.
// Versions are one increasing integer. A broker outlives the guests baked into old images, so it
// answers in the version that the guest opened with.
const (
	Version    = 1
	MinVersion = 1
)

// Ports on AF_VSOCK and on hybrid sockets. Both are below 1024, so that squatting needs privilege.
const (
	BrokerPort = 618 // the broker listens on the host
	RunPort    = 619 // the run channel: stdio, signals, exit code
)

// Schemes and authorities of requests that are not the workload's own.
const (
	Scheme          = "torno"  // scheme of channel and run requests
	BrokerAuthority = "broker" // authority on channel streams
	RunAuthority    = "run"    // authority on run streams
)

// SelfTestAuthority is what the guest asks for through its own capture before it starts the workload.
// The broker always refuses it with ReasonSelfTest, which proves names, TLS, trust and wire at once.
const SelfTestAuthority = "torno.invalid"

// Limits on one message. Each is checked once, in the decoder that reads the thing.
const (
	MaxMethod      = 32        // bytes
	MaxAuthority   = 262       // bytes: 253 of name, brackets or colon, port
	MaxPath        = 16 << 10  // bytes, query included
	MaxFields      = 256       // field lines in one section
	MaxFieldName   = 256       // bytes
	MaxFieldValue  = 64 << 10  // bytes
	MaxHead        = 128 << 10 // bytes of control data and one field section, as encoded
	MaxInterim     = 8         // interim (1xx) responses in one exchange
	MaxChunk       = 64 << 10  // bytes that a writer puts in one content chunk; readers accept any length
	MaxChannelBody = 64 << 10  // bytes of JSON in one channel request
	MaxJSONDepth   = 8         // nesting of JSON from the guest
)

// Limits on one session.
const (
	MaxStreams     = 512             // streams open at once
	MaxIdleStreams = 64              // idle streams a guest keeps pooled
	StreamWait     = 2 * time.Second // how long a further exchange waits for a stream before 503
	MaxLeaves      = 4096            // leaf certificates
	LeafRate       = 20              // leaf certificates a second
	MaxNames       = 65536           // synthetic names in one session, then SERVFAIL
	MaxAgents      = 8               // clients of the SSH agent at once
)

// Limits on a workspace, on the way in and on the way back alike.
const (
	MaxWorkspaceEntries = 1 << 19  // files, directories, links and deletions
	MaxWorkspaceBytes   = 16 << 30 // bytes of files
	MaxWorkspaceNames   = 64 << 20 // bytes of names and of links' targets together
	MaxWorkspacePath    = 4095     // bytes of one name, which is a path below the workspace
	MaxWorkspaceElement = 255      // bytes between two slashes
)

// Limits on published ports.
const (
	MaxPublished   = 64               // connections at once, over all ports
	PublishTimeout = 10 * time.Second // from a client's connection to the guest's stream for it
)

// Deadlines. They fit calls to language models: a response head may take long, a stream may be quiet.
const (
	PrefaceTimeout      = 5 * time.Second  // from accept to a whole preface
	HelloTimeout        = 10 * time.Second // the whole hello exchange
	HeadTimeout         = 30 * time.Second // from a head's first byte to its last
	DialTimeout         = 10 * time.Second // TCP connect upstream, all addresses together
	TLSTimeout          = 10 * time.Second // TLS handshake, either side
	ResponseHeadTimeout = 15 * time.Minute // from the request's end to the response's head
	IdleTimeout         = 1 * time.Hour    // between two bytes of content in either direction
	TunnelTimeout       = 24 * time.Hour   // life of a tunnel
	StreamIdleTimeout   = 5 * time.Minute  // an idle pooled stream, broker side
	ContinueTimeout     = 1 * time.Second  // broker answers Expect itself when upstream stays silent
	SessionLifetime     = 30 * 24 * time.Hour
	LeafLifetime        = 24 * time.Hour
	LeafBackdate        = 1 * time.Hour
	RevokeDeadline      = 1 * time.Second // from revoke to the last byte of anything open
)
