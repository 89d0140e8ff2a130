package credential

import (
	"slices"

	"torno.internal/protocol"
)

// Misplaced returns a *protocol.RefusedError for ReasonPlaceholder if a cookie or the target, a path with its query, holds
// a placeholder for a host that its secret is not bound to, or one of another session. Credentials travel there too, but
// none is put there, so Select does not look.
func (s *Set) Misplaced(a protocol.Authority, scheme string, fields protocol.Fields, target string) (err error) {
	var bound []*Use
	if scheme == "https" {
		bound = s.byOrigin[a]
	}
	look := func(where, text string) {
		marks(text, func(before, from string) bool {
			if u := s.owner(before, from); u == nil || !slices.ContainsFunc(bound, func(b *Use) bool { return b.Name == u.Name }) {
				err = refuse(protocol.ReasonPlaceholder, "%s: a placeholder of another host's secret, or of another session", where)
			}
			return err == nil
		})
	}
	look("target", target)
	for i := range fields {
		if protocol.FoldName(fields[i].Name) == "cookie" {
			look("cookie", fields[i].Value)
		}
	}
	return err
}
