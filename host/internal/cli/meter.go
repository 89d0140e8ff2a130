package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// A meter shows how far something is: in one line that changes where somebody looks, else in a line for each step.
type meter struct {
	out  io.Writer
	live bool // out is a terminal

	mu   sync.Mutex
	what string    // the step that was shown last
	last time.Time // when
}

// How a meter looks.
const (
	barWidth = 24                     // characters
	meterRow = 78                     // characters of the line
	redraw   = 100 * time.Millisecond // at the soonest
)

func newMeter(f *os.File) *meter { return &meter{out: f, live: isTerminal(f)} }

// report takes a step, and bytes that are done out of total; total 0: not known.
func (m *meter) report(what string, done, total int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.live {
		if what != m.what {
			fmt.Fprintf(m.out, "torno: %s%s\n", what, amount(total))
		}
		m.what = what
		return
	}
	if what == m.what && time.Since(m.last) < redraw && (done < total || total == 0) {
		return
	}
	m.what, m.last = what, time.Now()
	line := "torno: " + what
	switch {
	case total == 0 && done > 0:
		line += ": " + mebibytes(done)
	case total > 0:
		full := int(min(done, total) * barWidth / total)
		line += " [" + strings.Repeat("#", full) + strings.Repeat(".", barWidth-full) + "] " + mebibytes(min(done, total)) + " of " + mebibytes(total)
	}
	fmt.Fprintf(m.out, "\r%-*.*s", meterRow, meterRow, line)
}

func amount(total int64) string {
	if total == 0 {
		return ""
	}
	return ": " + mebibytes(total)
}

// end takes the line away.
func (m *meter) end() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.live && m.what != "" {
		fmt.Fprintf(m.out, "\r%*s\r", meterRow, "")
	}
	m.what = ""
}
