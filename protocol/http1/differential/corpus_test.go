package differential

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"

	"torno.internal/protocol"
	"torno.internal/protocol/http1"
)

// A written case is a message of testdata by hand.
type written struct {
	name, outcome, wire string
}

// corpus reads the cases of a file, whose form its first lines tell.
func corpus(t testing.TB, file string) (all []written) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for block := range strings.SplitSeq(strings.TrimSpace(string(b)), "\n\n") {
		lines := strings.Split(block, "\n")
		if strings.HasPrefix(lines[0], "#") {
			continue
		}
		if len(lines) < 3 || seen[lines[0]] {
			t.Fatalf("%s: block %q is incomplete or there twice", file, lines[0])
		}
		seen[lines[0]] = true
		w := written{name: lines[0], outcome: unescape(t, lines[1])}
		for _, l := range lines[2:] {
			if !strings.HasPrefix(l, "front ") {
				w.wire += unescape(t, l)
			}
		}
		all = append(all, w)
	}
	return all
}

func unescape(t testing.TB, s string) string {
	t.Helper()
	plain, err := strconv.Unquote(`"` + strings.ReplaceAll(s, `"`, `\"`) + `"`)
	if err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	return plain
}

// TestRequestCorpus holds each request by hand to what its case says, however its bytes arrive.
func TestRequestCorpus(t *testing.T) {
	for _, w := range corpus(t, "testdata/requests.txt") {
		t.Run(w.name, func(t *testing.T) {
			for _, arrive := range arrivals {
				m, err := readMessage(http1.NewReader(arrive(strings.NewReader(w.wire))))
				var refused *http1.Error
				got := fmt.Sprint(err)
				switch {
				case err == nil:
					got = fmt.Sprintf("pass %s %s \"%s\"", m.head.Method, m.head.Path, m.content)
				case errors.As(err, &refused):
					got = fmt.Sprint("refuse ", refused.Status)
				}
				if got != w.outcome {
					t.Errorf("%q, want %q", got, w.outcome)
				}
			}
		})
	}
}

// TestResponseCorpus does the same for responses.
func TestResponseCorpus(t *testing.T) {
	for _, w := range corpus(t, "testdata/responses.txt") {
		t.Run(w.name, func(t *testing.T) {
			m, err := understandResponse(w.wire, "GET")
			var refused *http1.Error
			got := fmt.Sprint(err)
			switch {
			case err == nil:
				got = fmt.Sprintf("pass %d \"%s\"", m.head.Status, m.content)
			case err == io.ErrUnexpectedEOF:
				got = "incomplete"
			case errors.As(err, &refused) && refused.Reason == protocol.ReasonUpstreamProtocol:
				got = "refuse"
			}
			if got != w.outcome {
				t.Errorf("%q, want %q", got, w.outcome)
			}
		})
	}
}

// arrivals are ways in which the same bytes may come.
var arrivals = []func(io.Reader) io.Reader{
	func(r io.Reader) io.Reader { return r },
	iotest.OneByteReader,
	iotest.HalfReader,
	iotest.DataErrReader,
}
