package audit

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"torno.internal/protocol/control"
)

const segmentSuffix = ".log"

// segmentName is the name of the segment whose first line is seq; names sort as sequence numbers do.
func segmentName(seq uint64) string { return fmt.Sprintf("%020d%s", seq, segmentSuffix) }

// segments returns the paths of dir's segments, oldest first.
func segments(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), segmentSuffix); ok && len(name) == 20 {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	slices.Sort(paths)
	return paths, nil
}

// A scanner reads the lines of one segment up to the zeros of its unused rest.
type scanner struct {
	r      *bufio.Reader
	offset int64 // of the next line
}

func newScanner(r io.Reader) *scanner { return &scanner{r: bufio.NewReaderSize(r, maxLine)} }

// errTorn means that the last line does not end.
var errTorn = errors.New("the last line is torn")

// next returns the next line without its end, valid until the next call. It returns io.EOF where the
// unused rest begins, and errTorn where a line does not end.
func (s *scanner) next() ([]byte, error) {
	first, err := s.r.Peek(1)
	if err != nil || first[0] == 0 {
		return nil, io.EOF
	}
	line, err := s.r.ReadSlice('\n')
	if err != nil || bytes.IndexByte(line, 0) >= 0 {
		return nil, errTorn
	}
	s.offset += int64(len(line))
	return line[:len(line)-1], nil
}

// rest reports whether everything after the last line is zeros.
func (s *scanner) rest() (bool, error) {
	for {
		if _, err := s.r.Peek(1); errors.Is(err, io.EOF) {
			return true, nil
		} else if err != nil {
			return false, err
		}
		b, _ := s.r.Peek(s.r.Buffered())
		if len(bytes.Trim(b, "\x00")) > 0 {
			return false, nil
		}
		_, _ = s.r.Discard(len(b))
	}
}

// A link is what the chain needs of a line.
type link struct {
	seq   uint64
	prev  [32]byte
	kind  string
	begin ID // of an end
}

// parseLink reads a line's place in the chain. Our encoder writes seq, time, prev and type first, in this
// order; a line that does not begin so was not written by it.
func parseLink(line []byte) (link, error) {
	var k link
	rest, ok := bytes.CutPrefix(line, []byte(`{"seq":`))
	if !ok {
		return k, errors.New("not a record")
	}
	number, rest, _ := bytes.Cut(rest, []byte(`,"time":"`))
	var err error
	if k.seq, err = strconv.ParseUint(string(number), 10, 64); err != nil {
		return link{}, errors.New("no sequence number")
	}
	_, rest, _ = bytes.Cut(rest, []byte(`","prev":"`))
	if len(rest) < 64 {
		return link{}, errors.New("no hash of the line before")
	}
	if _, err := hex.Decode(k.prev[:], rest[:64]); err != nil {
		return link{}, errors.New("no hash of the line before")
	}
	rest, _ = bytes.CutPrefix(rest[64:], []byte(`","type":"`))
	kind, rest, _ := bytes.Cut(rest, []byte{'"'})
	k.kind = string(kind)
	if k.kind == "end" {
		rest, _ = bytes.CutPrefix(rest, []byte(`,"begin":`))
		i := bytes.IndexAny(rest, ",}")
		n, err := strconv.ParseUint(string(rest[:max(i, 0)]), 10, 64)
		if err != nil {
			return link{}, errors.New("an end without a beginning")
		}
		k.begin = ID(n)
	}
	return k, nil
}

// Parse reads one line for showing.
func Parse(line []byte) (control.AuditRecord, error) {
	var r control.AuditRecord
	err := json.Unmarshal(line, &r)
	return r, err
}
