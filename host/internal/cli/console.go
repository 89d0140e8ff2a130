package cli

import (
	"context"
	"io"
	"strings"
	"time"

	"torno.internal/host/internal/config"
	"torno.internal/protocol/control"
)

// consolePause is how often the broker is told what the VM's console says, if it says anything new.
const consolePause = 2 * time.Second

// reportConsole tells the broker what the VM's console says for as long as the run lasts, for sessions show.
// The function that it returns ends that, after a last word. It is advice: what goes wrong is left.
func (l *launch) reportConsole(ctx context.Context, c *client, session string) (end func(context.Context)) {
	ctx, cancel := context.WithCancel(ctx)
	last := ""
	report := func(ctx context.Context) {
		text := strings.ToValidUTF8(l.console.String(), "?") // and no longer for it
		if text == last {
			return
		}
		last = text
		if err := c.do(ctx, "POST", control.PathConsole, control.ConsoleReport{Session: session, Text: text}, nil); err != nil {
			l.log.Debug("reporting the console", "err", err)
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(consolePause):
				report(ctx)
			}
		}
	}()
	return func(ctx context.Context) {
		cancel()
		<-done
		report(ctx)
	}
}

// shownLines is how many of a console's last lines sessions show prints.
const shownLines = 20

// printConsole prints the last lines that a guest said, harmlessly.
func printConsole(w io.Writer, text string) error {
	text = strings.TrimSpace(strings.ReplaceAll(text, "\r", ""))
	if text == "" {
		return nil
	}
	lines := strings.Split(text, "\n")
	var b strings.Builder
	b.WriteString("console\n")
	for _, line := range lines[max(0, len(lines)-shownLines):] {
		b.WriteString("  " + config.EscapeControl(line) + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}
