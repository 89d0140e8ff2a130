package front

import (
	"context"
	"encoding/xml"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// h2specCases is how many cases h2spec runs.
const h2specCases = 146

// h2spec, the conformance test of HTTP/2, over TLS and without.
func TestH2Spec(t *testing.T) {
	h2spec, err := filepath.Abs("../../../.cache/h2spec/h2spec")
	if err == nil {
		_, err = os.Stat(h2spec)
	}
	if err != nil {
		t.Skip("h2spec is not built (try: make client-deps)")
	}
	for name, c := range map[string]struct {
		flags []string
		fail  []string // the cases that may
	}{
		"TLS": {flags: []string{"-t", "-k"}},
		// Without TLS what does not begin as HTTP/2 is HTTP/1, and answered so.
		"plain": {fail: []string{"http2/3.5: Sends invalid connection preface"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			port := h.serveUncaptured()
			report := filepath.Join(t.TempDir(), "report.xml")
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
			defer cancel()
			args := append([]string{"-S", "-h", "127.0.0.1", "-p", port, "-o", "1", "-j", report}, c.flags...)
			out, _ := exec.CommandContext(ctx, h2spec, args...).CombinedOutput()
			failed, cases := readReport(t, report)
			if cases != h2specCases {
				t.Fatalf("%d cases ran, want %d:\n%s", cases, h2specCases, out)
			}
			want := map[string]string{}
			for _, name := range c.fail {
				want[name] = failed[name]
			}
			if diff := cmp.Diff(want, failed); diff != "" {
				t.Errorf("%d of %d cases fail (-want +got):\n%s", len(failed), cases, diff)
			}
		})
	}
}

// readReport returns the cases that failed, with what was expected instead, and how many ran.
func readReport(t *testing.T, path string) (failed map[string]string, cases int) {
	t.Helper()
	var report struct {
		Suites []struct {
			Package string `xml:"package,attr"`
			Cases   []struct {
				Name    string `xml:"classname,attr"`
				Failure string `xml:"failure"`
				Error   string `xml:"error"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	b, err := os.ReadFile(path)
	if err == nil {
		err = xml.Unmarshal(b, &report)
	}
	if err != nil {
		t.Fatal(err)
	}
	failed = map[string]string{}
	for _, s := range report.Suites {
		for _, c := range s.Cases {
			cases++
			if why := strings.TrimSpace(c.Failure + c.Error); why != "" {
				failed[s.Package+": "+c.Name] = why
			}
		}
	}
	return failed, cases
}

// serveUncaptured serves connections to 127.0.0.1 as such, and returns the port.
func (h *house) serveUncaptured() string {
	h.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = h.front.Serve(ctx, ln) }()
	h.t.Cleanup(func() { cancel(); <-done })
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	return port
}
