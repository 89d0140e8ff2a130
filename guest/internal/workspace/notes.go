package workspace

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"torno.internal/protocol"
	"torno.internal/protocol/workspace"
)

// maxNote bounds a line of notes in bytes: numbers, and a name whose every byte is escaped.
const maxNote = 64 + 4*protocol.MaxWorkspacePath

// writeNote writes one line: kind, size, change time, and the name in Go's quotes.
func writeNote(w io.Writer, n note) error {
	_, err := fmt.Fprintf(w, "%d %d %d %q\n", n.kind, n.size, n.changed, n.name)
	return err
}

// parseNote reads what writeNote wrote, without the newline.
func parseNote(line string) (note, error) {
	var n note
	words := strings.SplitN(line, " ", 4)
	if len(words) != 4 {
		return n, fmt.Errorf("note %q has too few words", line)
	}
	kind, err1 := strconv.ParseUint(words[0], 10, 8)
	size, err2 := strconv.ParseInt(words[1], 10, 64)
	changed, err3 := strconv.ParseInt(words[2], 10, 64)
	name, err4 := strconv.Unquote(words[3])
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return n, fmt.Errorf("note %q: %w", line, err)
	}
	if err := workspace.CheckName(name); err != nil {
		return n, err
	}
	return note{name, workspace.Kind(kind), size, changed}, nil
}

// notes reads the notes of what went in, one by one, in order.
type notes struct {
	lines *bufio.Scanner
	next  note // the one that is not yet used; without a name: none is left
}

func readNotes(r io.Reader) (*notes, error) {
	n := &notes{lines: bufio.NewScanner(r)}
	n.lines.Buffer(nil, maxNote)
	return n, n.advance()
}

func (n *notes) advance() error {
	last := n.next
	n.next = note{}
	if !n.lines.Scan() {
		return n.lines.Err()
	}
	var err error
	if n.next, err = parseNote(n.lines.Text()); err != nil {
		return err
	}
	if last.name != "" && workspace.Compare(last.name, n.next.name) >= 0 {
		return fmt.Errorf("note of %q after that of %q", n.next.name, last.name)
	}
	return nil
}
