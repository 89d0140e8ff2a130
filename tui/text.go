package tui

import (
	"fmt"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"

	"torno.internal/protocol/control"
)

// fit escapes text and makes it exactly n columns wide: cut with an ellipsis, or padded.
func fit(text string, n int, right bool) string {
	text = cut(text, n)
	pad := strings.Repeat(" ", max(0, n-ansi.StringWidth(text)))
	if right {
		return pad + text
	}
	return text + pad
}

// cut escapes text and shortens it to n columns.
func cut(text string, n int) string { return ansi.Truncate(control.Escape(text), max(0, n), "…") }

// since says how long ago t was, in its largest unit. Where nothing may move by itself it does not count seconds.
func since(now, t time.Time, still bool) string {
	if t.IsZero() {
		return "-"
	}
	return span(now.Sub(t), still)
}

func span(d time.Duration, still bool) string {
	switch {
	case d < time.Minute && still:
		return "<1m"
	case d < time.Minute:
		return fmt.Sprintf("%ds", max(0, int(d.Seconds())))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// size prints bytes with three digits or so.
func size(n uint64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	v, i := float64(n), 0
	for v >= 1000 && i < len(units)-1 {
		v, i = v/1024, i+1
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", v, units[i])
}

// micros prints a duration of n microseconds with three digits or so.
func micros(n int64) string {
	switch d := time.Duration(n) * time.Microsecond; {
	case n <= 0:
		return "-"
	case d < time.Millisecond:
		return fmt.Sprintf("%dµs", n)
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.1fs", d.Seconds())
	default:
		return d.Round(time.Second).String()
	}
}

// clock prints a time of today by its hour, and any other with its date.
func clock(now, t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	now, t = now.Local(), t.Local()
	if now.Format(time.DateOnly) == t.Format(time.DateOnly) {
		return t.Format(time.TimeOnly)
	}
	return t.Format(time.DateTime)
}

// plural is "1 session", "2 sessions".
func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// bars are the heights of a sparkline, lowest first.
var bars = []rune("▁▂▃▄▅▆▇█")

// spark draws values as bars, the largest at full height; zero is a blank, so that what is rare is seen.
func spark(values []float64) string {
	top := 0.0
	for _, v := range values {
		top = max(top, v)
	}
	var b strings.Builder
	for _, v := range values {
		if v <= 0 || top == 0 {
			b.WriteByte(' ')
			continue
		}
		b.WriteRune(bars[min(len(bars)-1, int(v/top*float64(len(bars))))])
	}
	return b.String()
}
