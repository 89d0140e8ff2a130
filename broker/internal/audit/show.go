package audit

import "strings"

// ShowPath returns a path as the audit keeps it, with the values of credentials in its query masked, for people who
// decide on it. It is not escaped.
func ShowPath(path string) string {
	before, query, found := strings.Cut(path, "?")
	if !found {
		return path
	}
	pairs := strings.Split(query, "&")
	for i, pair := range pairs {
		if name, _, hasValue := strings.Cut(pair, "="); hasValue && isMasked(name) {
			pairs[i] = name + "=" + masked
		}
	}
	return before + "?" + strings.Join(pairs, "&")
}
