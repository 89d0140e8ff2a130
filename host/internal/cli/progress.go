package cli

import (
	"fmt"
	"os"
	"time"
)

const progressPause = 200 * time.Millisecond

// progress shows on a terminal how far something has come, in bytes, from a second on. total is 0 where
// nobody knows. The caller ends it.
func progress(what string, done func() int64, total int64) (end func()) {
	if !isTerminal(os.Stderr) {
		return func() {}
	}
	over, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		shown := false
		for wait := time.Second; ; wait = progressPause {
			select {
			case <-over:
				if shown {
					fmt.Fprint(os.Stderr, "\r\x1b[K")
				}
				return
			case <-time.After(wait):
			}
			shown = true
			line := fmt.Sprintf("\r\x1b[Ktorno: %s: %d MiB", what, done()>>20)
			if total > 0 {
				line += fmt.Sprintf(" of %d", total>>20)
			}
			fmt.Fprint(os.Stderr, line)
		}
	}()
	return func() { close(over); <-ended }
}
