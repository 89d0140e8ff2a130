package config

import (
	"fmt"
	"strings"
)

// Bounds of Diff.
const (
	diffContext = 3       // unchanged lines shown around a change
	maxDiffWork = 4 << 20 // cells of the table; beyond it all that differs is shown as replaced
)

// Diff returns the unified diff that turns old into new, or "" if they are equal. The text may be
// hostile: every line passes EscapeControl, so that what a person approves is what is there.
func Diff(oldName, newName string, old, new []byte) string {
	if string(old) == string(new) {
		return ""
	}
	script := compare(lines(string(old)), lines(string(new)))
	var b strings.Builder
	fmt.Fprintf(&b, "--- %s\n+++ %s\n", EscapeControl(oldName), EscapeControl(newName))
	for start := 0; start < len(script); {
		var hunk []edit
		hunk, start = nextHunk(script, start)
		writeHunk(&b, hunk)
	}
	return b.String()
}

// An edit is one line of a diff. Numbers count from 1 and are the line's own, or that of the next line
// on the side that lacks it.
type edit struct {
	op       byte // ' ', '-' or '+'
	text     string
	old, new int
}

// lines splits text after each newline; the last line may have none.
func lines(text string) []string {
	l := strings.SplitAfter(text, "\n")
	if l[len(l)-1] == "" {
		l = l[:len(l)-1]
	}
	return l
}

// compare returns every line of both texts, in the order of a shortest edit script.
func compare(a, b []string) []edit {
	var script []edit
	i, j := 0, 0
	emit := func(op byte, text string) {
		script = append(script, edit{op, text, i + 1, j + 1})
		if op != '+' {
			i++
		}
		if op != '-' {
			j++
		}
	}
	tail := 0
	for i < len(a) && j < len(b) && a[i] == b[j] {
		emit(' ', a[i])
	}
	for tail < len(a)-i && tail < len(b)-j && a[len(a)-1-tail] == b[len(b)-1-tail] {
		tail++
	}
	endA, endB := len(a)-tail, len(b)-tail
	common := longestCommon(a[i:endA], b[j:endB])
	startA, startB := i, j
	for i < endA || j < endB {
		switch {
		case i < endA && j < endB && common != nil && a[i] == b[j]:
			emit(' ', a[i])
		case i < endA && (j == endB || common == nil || common[i+1-startA][j-startB] >= common[i-startA][j+1-startB]):
			emit('-', a[i])
		default:
			emit('+', b[j])
		}
	}
	for i < len(a) {
		emit(' ', a[i])
	}
	return script
}

// longestCommon returns the lengths of the longest common subsequences of all a[i:] and b[j:], or nil
// if the table would be too large.
func longestCommon(a, b []string) [][]int32 {
	if (len(a)+1)*(len(b)+1) > maxDiffWork {
		return nil
	}
	t := make([][]int32, len(a)+1)
	for i := range t {
		t[i] = make([]int32, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				t[i][j] = t[i+1][j+1] + 1
			} else {
				t[i][j] = max(t[i+1][j], t[i][j+1])
			}
		}
	}
	return t
}

// nextHunk returns the next run of changes with their context, and where to look for another.
func nextHunk(script []edit, start int) ([]edit, int) {
	first := start
	for first < len(script) && script[first].op == ' ' {
		first++
	}
	if first == len(script) {
		return nil, first
	}
	last := first // the last change whose context touches the next one's
	for k := first; k < len(script) && k-last <= 2*diffContext+1; k++ {
		if script[k].op != ' ' {
			last = k
		}
	}
	end := min(last+1+diffContext, len(script))
	return script[max(start, first-diffContext):end], end
}

func writeHunk(b *strings.Builder, hunk []edit) {
	if len(hunk) == 0 {
		return
	}
	var removed, added int
	for _, e := range hunk {
		if e.op != '+' {
			removed++
		}
		if e.op != '-' {
			added++
		}
	}
	// An empty side is numbered by the line before it.
	from, to := hunk[0].old, hunk[0].new
	if removed == 0 {
		from--
	}
	if added == 0 {
		to--
	}
	fmt.Fprintf(b, "@@ -%d,%d +%d,%d @@\n", from, removed, to, added)
	for _, e := range hunk {
		text, ended := strings.CutSuffix(e.text, "\n")
		fmt.Fprintf(b, "%c%s\n", e.op, EscapeControl(text))
		if !ended {
			b.WriteString("\\ No newline at end of file\n")
		}
	}
}
