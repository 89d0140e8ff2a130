package front

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"

	"torno.internal/protocol"
	"torno.internal/protocol/bhttp"
)

// TestAttack18Corpus sends the parser's corpus through the front: the broker is asked exactly what a case
// says, once, or nothing where it is refused, and nothing that lies behind it.
func TestAttack18Corpus(t *testing.T) {
	h := newHouse(t)
	asked := make(chan string, 8)
	h.broker = func(req *protocol.Request, r *bhttp.Reader, w *bhttp.Writer, _ net.Conn) error {
		content, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		asked <- fmt.Sprintf("pass %s %s \"%s\" %s", req.Method, req.Path, content, req.Authority)
		if err := r.ReadTrailer(&protocol.Fields{}); err != nil {
			return err
		}
		return reply(w, 200, nil, "", nil)
	}
	b, err := os.ReadFile("../../../protocol/http1/differential/testdata/requests.txt")
	if err != nil {
		t.Fatal(err)
	}
	cases := 0
	for block := range strings.SplitSeq(strings.TrimSpace(string(b)), "\n\n") {
		lines := strings.Split(block, "\n")
		if strings.HasPrefix(lines[0], "#") {
			continue
		}
		cases++
		t.Run(lines[0], func(t *testing.T) {
			outcome, wire := corpusCase(t, lines[1:])
			got := h.send(t, wire)
			want := strings.TrimPrefix(outcome, "refuse ")
			if strings.HasPrefix(outcome, "pass ") {
				want = "200"
			}
			if got != want {
				t.Errorf("answer %s, want %s", got, want)
			}
			select {
			case got := <-asked:
				if got != outcome+" a.example:443" {
					t.Errorf("the broker was asked %q, want %q", got, outcome)
				}
			default:
				if want == "200" {
					t.Error("the broker was not asked")
				}
			}
			if len(asked) > 0 {
				t.Errorf("then the broker was asked %q", <-asked)
			}
		})
	}
	if cases < 100 {
		t.Errorf("only %d cases", cases)
	}
}

// corpusCase returns the outcome that the front owes, and the bytes.
func corpusCase(t *testing.T, lines []string) (outcome, wire string) {
	t.Helper()
	for i, l := range lines {
		plain, err := strconv.Unquote(`"` + strings.ReplaceAll(l, `"`, `\"`) + `"`)
		if err != nil {
			t.Fatalf("%q: %v", l, err)
		}
		status, ok := strings.CutPrefix(l, "front ")
		switch {
		case i == 0:
			outcome = plain
		case ok:
			outcome = "refuse " + status
		default:
			wire += plain
		}
	}
	return outcome, wire
}

// send sends wire over a connection for https://a.example, ends it, and returns the first final status.
func (h *house) send(t *testing.T, wire string) string {
	t.Helper()
	c := h.raw(h.addr, "a.example")
	defer c.Close()
	_, _ = io.WriteString(c, wire)
	_ = c.(interface{ CloseWrite() error }).CloseWrite()
	r := bufio.NewReader(c)
	for {
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			return err.Error()
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		if resp.StatusCode >= 200 {
			_, _ = io.Copy(io.Discard, r) // until the front has closed
			return fmt.Sprint(resp.StatusCode)
		}
	}
}
