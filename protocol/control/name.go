package control

// Limits on names, in bytes.
const (
	MaxAgent = 63  // of an agent
	MaxKey   = 128 // of a secret
)

// The grammars of names, for messages to people.
const (
	AgentGrammar = "a to z, 0 to 9 and hyphens, at most 63, no hyphen first"
	KeyGrammar   = "A to Z, 0 to 9 and underscores, at most 128, no digit first"
)

// ValidAgent reports whether s names an agent: [a-z0-9][a-z0-9-]{0,62}. Such a name needs no quoting in
// a path, a URL or a shell.
func ValidAgent(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' && i > 0) {
			return false
		}
	}
	return s != "" && len(s) <= MaxAgent
}

// ValidKey reports whether s names a secret: [A-Z_][A-Z0-9_]{0,127}, as an environment variable is
// named.
func ValidKey(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !('A' <= c && c <= 'Z' || c == '_' || '0' <= c && c <= '9' && i > 0) {
			return false
		}
	}
	return s != "" && len(s) <= MaxKey
}
