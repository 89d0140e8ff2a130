package credential

// StripTarget returns target without the workload's own credential, where u sets it there.
func (u *Use) StripTarget(target string) string {
	if t, ok := u.Injector.(targeter); ok {
		return t.StripTarget(target)
	}
	return target
}
