package differential

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// A result is one response as a client read it.
type result struct {
	ID      int         `json:"id"`
	Error   string      `json:"error"` // it refused
	Status  int         `json:"status"`
	Fields  [][2]string `json:"fields"`
	Content string      `json:"content"`
}

// A client asks the port for /0 to /n-1 by methods, one letter each (G or H), and returns the results.
type client struct {
	name string
	ask  func(t testing.TB, port int, methods string) []result
}

// clients returns all of them.
func clients(t testing.TB) []*client {
	t.Helper()
	node := program(t, "nodejs", "node")
	python := program(t, "python3", "/usr/bin/python3", "python3")
	curl := program(t, "curl", "curl")
	script := func(interpreter, script string) func(testing.TB, int, string) []result {
		return func(t testing.TB, port int, methods string) []result {
			out := start(t, "testdata", interpreter, script, strconv.Itoa(port), strconv.Itoa(len(methods)), methods)
			return decodeResults(t, out, len(methods))
		}
	}
	return []*client{
		{"net/http", askGo},
		{"node", script(node, "client.js")},
		{"python", script(python, "client.py")},
		{"curl", func(t testing.TB, port int, methods string) []result { return askCurl(t, curl, port, methods) }},
	}
}

func decodeResults(t testing.TB, out *bufio.Reader, n int) []result {
	all := make([]result, n)
	d := json.NewDecoder(out)
	for range n {
		var r result
		if err := d.Decode(&r); err != nil {
			t.Errorf("results: %v", err)
			return all
		}
		for i := range r.Fields {
			r.Fields[i] = [2]string{bytesOf(r.Fields[i][0]), bytesOf(r.Fields[i][1])}
		}
		r.Content = bytesOf(r.Content)
		all[r.ID] = r
	}
	return all
}

func methodOf(letter byte) string {
	if letter == 'H' {
		return "HEAD"
	}
	return "GET"
}

// askGo is the client that is net/http.
func askGo(_ testing.TB, port int, methods string) []result {
	tr := &http.Transport{DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: 1 << 20, ResponseHeaderTimeout: 20 * time.Second}
	all := make([]result, len(methods))
	for id := range methods {
		all[id] = roundTrip(tr, methodOf(methods[id]), fmt.Sprintf("http://127.0.0.1:%d/%d", port, id))
	}
	return all
}

func roundTrip(tr *http.Transport, method, url string) result {
	req, err := http.NewRequest(method, url, nil)
	if err != nil {
		return result{Error: err.Error()}
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return result{Error: err.Error()}
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return result{Error: "upgrade"}
	}
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		return result{Error: err.Error()}
	}
	r := result{Status: resp.StatusCode, Content: string(content)}
	for name, values := range resp.Header {
		for _, v := range values {
			r.Fields = append(r.Fields, [2]string{name, v})
		}
	}
	return r
}

// askCurl runs curl once for all.
func askCurl(t testing.TB, path string, port int, methods string) []result {
	dir := t.TempDir()
	var config strings.Builder
	for id := range methods {
		if id > 0 {
			config.WriteString("next\n")
		}
		if methods[id] == 'H' {
			config.WriteString("head\n")
		}
		fmt.Fprintf(&config, "url = http://127.0.0.1:%d/%d\noutput = %d.content\ndump-header = %d.head\nwrite-out = \"%d %%{exitcode}\\n\"\n", port, id, id, id, id)
		config.WriteString("silent\nhttp1.1\nnoproxy = \"*\"\nmax-time = 20\n")
	}
	if err := os.WriteFile(filepath.Join(dir, "config"), []byte(config.String()), 0o600); err != nil {
		t.Error(err)
		return nil
	}
	out := start(t, dir, path, "-q", "-K", "config")
	all := make([]result, len(methods))
	for range methods {
		var id, code int
		if _, err := fmt.Fscan(out, &id, &code); err != nil {
			t.Errorf("curl: %v", err)
			return all
		}
		if all[id] = (result{Error: fmt.Sprint("exit ", code)}); code == 0 {
			all[id] = readCurl(dir, id, methods[id] == 'H')
		}
	}
	return all
}

// readCurl reads what curl wrote of one response: heads, interim ones first, and trailer sections.
func readCurl(dir string, id int, head bool) (r result) {
	b, err := os.ReadFile(filepath.Join(dir, fmt.Sprint(id, ".head")))
	if err != nil {
		return result{Error: err.Error()}
	}
	for section := range strings.SplitSeq(string(b), "\r\n\r\n") {
		line, fields, _ := strings.Cut(section, "\r\n")
		if !strings.HasPrefix(line, "HTTP/") {
			continue
		}
		r = result{}
		if _, err := fmt.Sscan(strings.Fields(line)[1], &r.Status); err != nil {
			return result{Error: err.Error()}
		}
		for l := range strings.SplitSeq(fields, "\r\n") {
			if name, value, ok := strings.Cut(l, ":"); ok {
				r.Fields = append(r.Fields, [2]string{name, strings.Trim(value, " \t")})
			}
		}
	}
	if !head { // to HEAD curl writes the head as content
		content, err := os.ReadFile(filepath.Join(dir, fmt.Sprint(id, ".content")))
		if err != nil && !os.IsNotExist(err) { // there is no file without content
			return result{Error: err.Error()}
		}
		r.Content = string(content)
	}
	return r
}

// serveBytes answers a request for /i with the i-th of wires and closes, and returns its port.
func serveBytes(t testing.TB, wires []string) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	t.Cleanup(func() { ln.Close(); served.Wait() })
	served.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			served.Go(func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(20 * time.Second))
				answerBytes(c, wires)
			})
		}
	})
	return ln.Addr().(*net.TCPAddr).Port
}

func answerBytes(c net.Conn, wires []string) {
	r := bufio.NewReader(c)
	line, err := r.ReadString('\n')
	if err != nil {
		return
	}
	var id int
	if _, err := fmt.Sscanf(line[strings.IndexByte(line, '/'):], "/%d ", &id); err != nil || id >= len(wires) {
		return
	}
	for l := ""; l != "\r\n"; { // all of it, lest closing resets the connection
		if l, err = r.ReadString('\n'); err != nil {
			return
		}
	}
	_, _ = io.WriteString(c, wires[id])
	_ = c.(*net.TCPConn).CloseWrite()
	_, _ = io.Copy(io.Discard, r)
}
