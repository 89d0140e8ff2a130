package config

import "torno.internal/protocol/control"

// EscapeControl is control.Escape, for those who show what stands in a file.
func EscapeControl(s string) string { return control.Escape(s) }
