package credential

import "torno.internal/protocol"

// Covers reports whether a request for target at a gets the secret.
func (u *Use) Covers(a protocol.Authority, target string) bool {
	if c, ok := u.Injector.(chooser); ok {
		return c.Covers(a, target)
	}
	return true
}

// StripTarget returns target without the workload's own credential, where u sets it there.
func (u *Use) StripTarget(target string) string {
	if t, ok := u.Injector.(targeter); ok {
		return t.StripTarget(target)
	}
	if t, ok := u.Signer.(targeter); ok {
		return t.StripTarget(target)
	}
	return target
}
