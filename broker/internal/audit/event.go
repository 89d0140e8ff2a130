package audit

// The events that the audit records of itself.
const (
	EventClockSetBack = "clock_set_back" // records behind it are earlier than the one before it, by us
	EventAuditDeleted = "audit_deleted"  // count segments, through a record, for they need not be kept
	EventSuppressed   = "suppressed"     // count records of a session were not written, for its budget was used up
)
