package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// A Problem is one thing that is wrong with a file.
type Problem struct {
	Line    int // from 1; 0 where no line is to blame
	Message string
}

// Errors is everything that is wrong with one file, by line.
type Errors struct {
	File     string
	Problems []Problem
}

// Error gives one line for each problem, as compilers do, safe to print on a terminal.
func (e *Errors) Error() string {
	file := EscapeControl(e.File)
	var b strings.Builder
	for i, p := range e.Problems {
		if i > 0 {
			b.WriteByte('\n')
		}
		if p.Line > 0 {
			fmt.Fprintf(&b, "%s:%d: %s", file, p.Line, EscapeControl(p.Message))
		} else {
			fmt.Fprintf(&b, "%s: %s", file, EscapeControl(p.Message))
		}
	}
	return b.String()
}

func newErrors(file string, problems []Problem) error {
	if len(problems) == 0 {
		return nil
	}
	slices.SortStableFunc(problems, func(a, b Problem) int { return cmp.Compare(a.Line, b.Line) })
	return &Errors{file, problems}
}

// nearest returns the word that was probably meant, or "".
func nearest(word string, known []string) string {
	best, distance := "", max(len(word)/3, 1)+1
	for _, k := range known {
		if d := editDistance(strings.ToLower(word), k); d < distance {
			best, distance = k, d
		}
	}
	return best
}

// editDistance counts insertions, deletions, replacements and swaps of neighbours (optimal string
// alignment). Words much longer than any key count as far apart.
func editDistance(a, b string) int {
	if len(a) > 64 {
		return len(a)
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
