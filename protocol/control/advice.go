package control

import "torno.internal/protocol"

// Advice says in a sentence what a reason's code means and what to do about it; nothing for a code that is none.
func Advice(code string) string {
	r, err := protocol.ParseReason(code)
	if err != nil || r == protocol.ReasonNone {
		return ""
	}
	return r.Advice()
}
