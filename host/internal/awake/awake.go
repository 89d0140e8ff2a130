// Package awake keeps one thread of Go's runtime awake in the processes that every request goes through, the broker and
// the guest. docs/decisions/0009-awake.md says why.
package awake

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// name is the environment variable that the runtime reads its settings from, as a list with commas.
const name = "GODEBUG"

// Setting is the runtime's setting: it prints what the scheduler does every so many milliseconds, and its monitor thread
// does not sleep until work comes but looks every 10 ms. The interval is the longest there is, 25 days.
const Setting = "schedtrace=2147483647"

// Variable is the environment variable with the setting alone, for processes that inherit no other.
const Variable = name + "=" + Setting

// Environ returns env with the setting in it.
func Environ(env []string) []string {
	added := Variable
	var kept []string
	for _, kv := range env {
		if value, ok := strings.CutPrefix(kv, name+"="); !ok {
			kept = append(kept, kv)
		} else if value != "" {
			added = kv + "," + Setting
		}
	}
	return append(kept, added)
}

// Ensure starts this process over with the setting, unless it has it: the runtime reads it at the start alone. It
// returns only where there is nothing to do, or nothing can be done.
func Ensure() {
	if strings.Contains(os.Getenv(name), Setting) {
		return
	}
	_ = unix.Exec("/proc/self/exe", os.Args, Environ(os.Environ())) // what it is for works without
}
