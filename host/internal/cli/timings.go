package cli

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// phasePrefix begins a line of the guest's that says that a phase of its start is over.
const phasePrefix = "torno-guest: phase over: "

// Phases that mean something to us.
const (
	phaseSandbox  = "sandbox"  // QEMU runs, or the first stage into the namespaces
	phaseInit     = "init"     // the kernel has booted, and the guest says its first word
	phaseWorkload = "workload" // the command has executed its first instruction
)

// maxPhases bounds what a guest can make us remember.
const maxPhases = 64

// A timings notes when the phases of a start are over. Those in the guest it learns from the console, which
// is written to it. The nil timings note nothing. It is safe for concurrent use.
type timings struct {
	began time.Time

	mu     sync.Mutex
	phases []phase
	line   []byte
}

// A phase is one that is over, and when that was.
type phase struct {
	name string
	at   time.Time
}

// over notes that a phase is over.
func (t *timings) over(name string) {
	if t == nil {
		return
	}
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.add(name, now)
}

func (t *timings) add(name string, at time.Time) {
	if len(t.phases) < maxPhases {
		t.phases = append(t.phases, phase{name, at})
	}
}

// Write takes a piece of the console.
func (t *timings) Write(p []byte) (int, error) {
	const maxLine = 256
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.line = append(t.line, p...)
	for {
		line, rest, ended := bytes.Cut(t.line, []byte("\n"))
		if !ended {
			break
		}
		if _, name, ok := strings.Cut(string(line), phasePrefix); ok {
			t.add(strings.TrimSpace(name), now)
		}
		t.line = rest
	}
	t.line = t.line[max(0, len(t.line)-maxLine):]
	return len(p), nil
}

// print prints the phases up to the command's first instruction, and what is not the kernel's of their time.
func (t *timings) print(w io.Writer) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var rows [][]string
	var kernel, total time.Duration
	last := t.began
	for _, p := range t.phases {
		took := p.at.Sub(last)
		if p.name == phaseInit {
			kernel = took
		}
		last, total = p.at, p.at.Sub(t.began)
		rows = append(rows, []string{p.name, milliseconds(took), milliseconds(total)})
		if p.name == phaseWorkload {
			break
		}
	}
	if err := printTable(w, []string{"PHASE", "TOOK", "AT"}, rows); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "first instruction after %s: %s from %s to %s, %s ours\n",
		milliseconds(total), milliseconds(kernel), phaseSandbox, phaseInit, milliseconds(total-kernel))
	return err
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000)
}
