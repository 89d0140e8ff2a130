package control

// Config is the operator's broker.toml.
type Config struct {
	Listen    string             `json:"listen,omitempty"` // vsock://2:618: where VMs reach the broker by the kernel's vsock; none: they don't
	Upstreams []Upstream         `json:"upstream,omitempty"`
	Egress    ConfigEgress       `json:"egress"`
	Agents    map[string]Ceiling `json:"agents,omitempty"`
	Limits    Limits             `json:"limits"`
	Metrics   Metrics            `json:"metrics"`
	Key       ConfigKey          `json:"key"`
	Audit     ConfigAudit        `json:"audit"`
	Plugins   map[string]Plugin  `json:"plugins,omitempty"`
}

// ConfigKey says what may protect the broker's key file, other than a passphrase.
type ConfigKey struct {
	Credential string   `json:"credential,omitempty"` // name of a credential that systemd hands to the service
	Command    []string `json:"command,omitempty"`    // what prints the secret; the first an absolute path
}

// ConfigAudit says how the audit is kept.
type ConfigAudit struct {
	Sync     string `json:"sync,omitempty"`      // AuditSyncInterval (default) or AuditSyncAlways
	KeepDays int    `json:"keep_days,omitempty"` // records that are older are deleted, a segment at a time; 0: never
	KeepMiB  int    `json:"keep_mib,omitempty"`  // the oldest segments are deleted before all take more; 0: never
}

// When the beginning of an exchange is forced to disk.
const (
	AuditSyncInterval = "interval" // within 100 ms: the loss of power may lose that much
	AuditSyncAlways   = "always"   // before the exchange happens
)

// Limits hold for each session. Zero values mean the defaults.
type Limits struct {
	ReflectionsPerResponse int `json:"reflections_per_response,omitempty"` // masked runs in one response before the session is suspended; 8
	ReflectionsPerSession  int `json:"reflections_per_session,omitempty"`  // and in all of a session's responses; 32
	AuditRecordsPerSecond  int `json:"audit_records_per_second,omitempty"` // exchanges and events recorded, with a burst of ten seconds' worth; beyond it 429; 200
	AuditMiBPerHour        int `json:"audit_mib_per_hour,omitempty"`       // and their estimated size; 64
	AskSeconds             int `json:"ask_seconds,omitempty"`              // until a request that waits for a person is denied; 300
	AsksPerSession         int `json:"asks_per_session,omitempty"`         // requests of a session that wait at once; 16
	Asks                   int `json:"asks,omitempty"`                     // and of all sessions together; 256
}

// An Upstream overrides how one authority is reached. Dial is exempt from the address guard, for that
// authority alone.
type Upstream struct {
	Host string `json:"host"`
	Port uint16 `json:"port,omitempty"` // 443
	Dial string `json:"dial,omitempty"` // host:port to connect to instead
	CA   string `json:"ca,omitempty"`   // PEM file trusted for this authority instead of the host's roots
}

// ConfigEgress holds for all agents.
type ConfigEgress struct {
	AllowPrivate []string `json:"allow_private,omitempty"` // CIDRs exempt from the guard
	CA           []string `json:"ca,omitempty"`            // PEM files added to the host's roots
	NAT64        []string `json:"nat64,omitempty"`         // prefixes whose addresses are judged by the IPv4 address inside

	Proxy                  string   `json:"proxy,omitempty"`                    // http://host:port; everything leaves through its CONNECT
	ProxyAuthorizationFile string   `json:"proxy_authorization_file,omitempty"` // 0600, one line: the value of Proxy-Authorization
	NoProxy                []string `json:"no_proxy,omitempty"`                 // names, *.names and CIDRs that are reached directly
}

// A Ceiling bounds what an agent's own file may ask for. The zero value allows any public host.
type Ceiling struct {
	Egress       *Egress     `json:"egress,omitempty"`
	AllowPrivate []string    `json:"allow_private,omitempty"`
	Limits       AgentLimits `json:"limits"`
	Cookies      string      `json:"cookies,omitempty"`      // Set-Cookie from hosts that a secret is bound to: CookiesStrip (default) or CookiesPass
	Presign      bool        `json:"presign,omitempty"`      // requests that the workload signs in their query are signed anew, for at most 15 minutes
	Minting      string      `json:"minting,omitempty"`      // the endpoints that presets deny: MintingDeny (default) or MintingPass
	Placeholders string      `json:"placeholders,omitempty"` // in a credential position for a host that they are not for: PlaceholdersBlock (default), PlaceholdersLog or PlaceholdersTerminate
}

// Whether a workload may have credentials that it got with a secret, and that outlive the session.
const (
	CookiesStrip = "strip"
	CookiesPass  = "pass"
	MintingDeny  = "deny"
	MintingPass  = "pass"
)
