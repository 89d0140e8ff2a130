package protocol

import "fmt"

// A Reason says why an exchange was refused or failed. The table is closed: it is all that a workload
// ever learns of the broker's decisions. It travels in the torno-reason field of the response.
type Reason uint8

// The reasons. The zero value means that nothing was refused.
const (
	ReasonNone Reason = iota
	ReasonSelfTest
	ReasonDenied
	ReasonDeniedByRule
	ReasonAskDenied
	ReasonBadRequest
	ReasonBadAuthority
	ReasonMisdirected
	ReasonAmbiguousPath
	ReasonAmbiguousCredential
	ReasonPlaceholder
	ReasonUnsignable
	ReasonInsecureScheme
	ReasonForbiddenAddress
	ReasonUnknownName
	ReasonConnect
	ReasonUpstreamTLS
	ReasonUpstreamTimeout
	ReasonUpstreamProtocol
	ReasonCodedContent
	ReasonReflection
	ReasonStreamsExhausted
	ReasonRateLimited
	ReasonConcurrencyLimited
	ReasonBytesLimited
	ReasonRevoked
	ReasonExpired
	ReasonSessionEnded
	ReasonAuditUnavailable
	ReasonBrokerUnavailable
	ReasonUnsupported
	ReasonNoPlace
	ReasonCredential
	ReasonWrongRole
	ReasonUpstreamAuth
	ReasonNoSigner
	ReasonInternal
	reasonCount
)

// FieldReason is the response field that carries a Reason. Upstream fields that begin with torno- are
// removed, so the workload can trust it.
const FieldReason = "torno-reason"

// FieldDialled is the request field by which a guest may tell the address that the workload connected
// to, as IP:port. The broker records it, decides nothing by it and sends it nowhere.
const FieldDialled = "torno-dialled"

// FieldHTTP is the request field by which a guest tells, with the value "2", that the workload speaks
// HTTP/2: the broker then offers HTTP/2 to the upstream as well. It is sent nowhere.
const FieldHTTP = "torno-http"

// FieldProtocol is the response field by which a broker tells, in its answer to CONNECT, that it speaks a protocol itself:
// with the value ProtocolPostgres the guest ends the client's TLS, and the tunnel carries what is inside.
const FieldProtocol = "torno-protocol"

// ProtocolPostgres is a value of FieldProtocol.
const ProtocolPostgres = "postgres"

type reasonRow struct {
	code   string
	status int
	advice string // one sentence: what the person at the keyboard can do
}

var reasonTable = [reasonCount]reasonRow{
	ReasonNone:                {"none", 200, "Nothing was refused."},
	ReasonSelfTest:            {"self_test", 403, "The capture works; this name exists to be refused."},
	ReasonDenied:              {"denied", 403, "No rule allows this request; add one to [egress] allow in torno.toml and approve it with torno trust."},
	ReasonDeniedByRule:        {"denied_by_rule", 403, "A deny rule matches this request; run torno policy check to see which."},
	ReasonAskDenied:           {"ask_denied", 403, "This request needs a person's approval and did not get it."},
	ReasonBadRequest:          {"bad_request", 400, "The request is malformed or ambiguous; torno forwards only what every parser reads the same way."},
	ReasonBadAuthority:        {"bad_authority", 400, "The host is not a valid name or address literal."},
	ReasonMisdirected:         {"misdirected", 421, "The TLS server name, the Host field and the request target must name the same host."},
	ReasonAmbiguousPath:       {"ambiguous_path", 403, "The path means one thing to a rule as sent and another when normalised; send it normalised."},
	ReasonAmbiguousCredential: {"ambiguous_credential", 403, "Several secrets fit this host; send the placeholder of the one that you mean."},
	ReasonPlaceholder:         {"placeholder_blocked", 403, "A placeholder was sent to a host that its secret is not bound to."},
	ReasonUnsignable:          {"unsignable", 403, "The request cannot be signed as it stands: it lacks something that is signed, or its own signature or digest is for something else."},
	ReasonInsecureScheme:      {"insecure_scheme", 403, "A secret is bound to this host and never goes over plain http; use https."},
	ReasonForbiddenAddress:    {"forbidden_address", 403, "The name resolves to a private, loopback or otherwise special address."},
	ReasonUnknownName:         {"unknown_name", 502, "The broker could not resolve the host's name."},
	ReasonConnect:             {"connect_failed", 502, "The broker could not connect to the host."},
	ReasonUpstreamTLS:         {"upstream_tls", 502, "The host's certificate could not be verified."},
	ReasonUpstreamTimeout:     {"upstream_timeout", 504, "The host did not answer in time."},
	ReasonUpstreamProtocol:    {"upstream_protocol", 502, "The host's answer was malformed."},
	ReasonCodedContent:        {"coded_content", 502, "The host's answer is coded in a way that cannot be checked for secrets; ask without Range, or for another representation."},
	ReasonReflection:          {"reflection", 403, "Hosts repeated this session's secrets too often, so the session is suspended; the operator should look, and torno sessions resume continues it."},
	ReasonStreamsExhausted:    {"streams_exhausted", 503, "Too many requests are open at once; try again shortly."},
	ReasonRateLimited:         {"rate_limited", 429, "The session's rate limit is reached; try again shortly."},
	ReasonConcurrencyLimited:  {"concurrency_limited", 429, "Too many of the session's requests are open at once; try again when one has ended."},
	ReasonBytesLimited:        {"bytes_limited", 429, "The session has used up its bytes for now; try again later."},
	ReasonRevoked:             {"revoked", 403, "The secret or session was revoked."},
	ReasonExpired:             {"expired", 403, "The secret has expired; the operator sets a new value with torno secrets set."},
	ReasonSessionEnded:        {"session_ended", 403, "This session has ended; start a new one."},
	ReasonAuditUnavailable:    {"audit_unavailable", 503, "The broker cannot record this request, so it does not send it; the operator should look at the disk."},
	ReasonBrokerUnavailable:   {"broker_unavailable", 503, "The broker does not answer; the operator should look at torno serve."},
	ReasonUnsupported:         {"unsupported", 501, "torno does not carry this kind of request."},
	ReasonNoPlace:             {"no_place", 403, "The host's secret goes into a fixed place of the path, and this path does not have it in plain form."},
	ReasonCredential:          {"credential_unavailable", 502, "The broker could not get the credential for this host, an access token or a secret that is kept elsewhere; its log says why."},
	ReasonWrongRole:           {"wrong_role", 403, "The secret is for another user or database, or the password is not its placeholder; use what the session's variable says."},
	ReasonUpstreamAuth:        {"upstream_auth", 502, "The server wants the password in a way that is not allowed, or does not know it; the broker's log says which."},
	ReasonNoSigner:            {"no_signer", 403, "No secret is bound to this host whose proofs may be handed out: send the request through torno."},
	ReasonInternal:            {"internal", 500, "The broker failed; its log says why."},
}

// String returns the reason's code as it travels.
func (r Reason) String() string {
	if r >= reasonCount {
		return fmt.Sprintf("reason(%d)", uint8(r))
	}
	return reasonTable[r].code
}

// Status returns the HTTP status that the reason is answered with.
func (r Reason) Status() int {
	if r >= reasonCount {
		r = ReasonInternal
	}
	return reasonTable[r].status
}

// Advice returns one sentence for people: what the reason means and what to do about it.
func (r Reason) Advice() string {
	if r >= reasonCount {
		r = ReasonInternal
	}
	return reasonTable[r].advice
}

// ParseReason returns the reason with the given code.
func ParseReason(code string) (Reason, error) {
	for r := range reasonCount {
		if reasonTable[r].code == code {
			return r, nil
		}
	}
	return 0, fmt.Errorf("unknown reason %q", code)
}

// A RefusedError carries a Reason up a call chain together with the whole error, which is for logs and
// the audit alone: only the Reason goes to the guest.
type RefusedError struct {
	Reason Reason
	Err    error // may be nil
}

// Refuse returns a RefusedError for reason, wrapping err, which may be nil.
func Refuse(reason Reason, err error) error { return &RefusedError{reason, err} }

func (e *RefusedError) Error() string {
	if e.Err == nil {
		return e.Reason.String()
	}
	return e.Reason.String() + ": " + e.Err.Error()
}

func (e *RefusedError) Unwrap() error { return e.Err }
