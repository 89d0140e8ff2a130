package differential

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// A seen is one request as an oracle read it.
type seen struct {
	Method  string      `json:"method"`
	Target  string      `json:"target"`
	Host    string      `json:"host"`
	Fields  [][2]string `json:"fields"`
	Content string      `json:"content"`
}

// An answer is one final response of an oracle: what it read, or the status with which it refused.
type answer struct {
	status int
	seen   *seen // nil if it refused
}

// An oracle is a server that answers every request with what it read, in the field x-seen.
type oracle struct {
	name          string
	network, addr string
	drops         []string // fields that it does not show
}

// ask sends wire on a connection of its own and returns the oracle's answers.
func (o *oracle) ask(wire string) ([]answer, error) {
	c, err := net.Dial(o.network, o.addr)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	// A server that refuses early may reset the connection. What it said before counts.
	_, _ = io.WriteString(c, wire)
	_ = c.(interface{ CloseWrite() error }).CloseWrite()
	all, err := io.ReadAll(c)
	if e, ok := err.(net.Error); ok && e.Timeout() {
		return nil, fmt.Errorf("%s: no answer to %s", o.name, quote(wire))
	}
	return parseAnswers(all)
}

// parseAnswers takes the answers out of a connection's bytes. An oracle's answers begin their first lines
// with HTTP/ and have no content that does.
func parseAnswers(b []byte) (all []answer, err error) {
	const echo = "x-seen: "
	for line := range bytes.Lines(b) {
		line := string(bytes.TrimRight(line, "\r\n"))
		if rest, ok := strings.CutPrefix(line, "HTTP/1."); ok && len(rest) > 2 {
			status := 0
			if _, err := fmt.Sscan(rest[1:], &status); err != nil {
				return nil, fmt.Errorf("answer %q", line)
			}
			if status >= 200 {
				all = append(all, answer{status: status})
			}
		}
		if len(all) == 0 || len(line) < len(echo) || !strings.EqualFold(line[:len(echo)], echo) {
			continue
		}
		if all[len(all)-1].seen, err = decodeSeen(line[len(echo):]); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func decodeSeen(text string) (*seen, error) {
	s := &seen{}
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, s); err != nil {
		return nil, err
	}
	for _, p := range []*string{&s.Method, &s.Target, &s.Host, &s.Content} {
		*p = bytesOf(*p)
	}
	for i := range s.Fields {
		s.Fields[i] = [2]string{bytesOf(s.Fields[i][0]), bytesOf(s.Fields[i][1])}
	}
	return s, nil
}

// bytesOf undoes latin1, in which oracles show bytes: JSON has no others.
func bytesOf(s string) string {
	b := make([]byte, 0, len(s))
	for _, r := range s {
		b = append(b, byte(r))
	}
	return string(b)
}

func latin1(s string) string {
	r := make([]rune, len(s))
	for i := range len(s) {
		r[i] = rune(s[i])
	}
	return string(r)
}

// echo is the oracle that is net/http, and the recorder behind nginx.
func echo(w http.ResponseWriter, r *http.Request) {
	content, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	s := seen{Method: r.Method, Target: latin1(r.RequestURI), Host: latin1(r.Host), Content: latin1(string(content))}
	for name, values := range r.Header {
		for _, v := range values {
			s.Fields = append(s.Fields, [2]string{latin1(name), latin1(v)})
		}
	}
	b, err := json.Marshal(s)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("x-seen", base64.StdEncoding.EncodeToString(b))
	w.Header().Set("content-length", "0")
}

func serveEcho(t testing.TB, network, addr string) string {
	t.Helper()
	ln, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(echo), DisableGeneralOptionsHandler: true, ReadHeaderTimeout: time.Minute}
	var served sync.WaitGroup
	served.Go(func() { _ = server.Serve(ln) })
	t.Cleanup(func() { server.Close(); served.Wait() })
	return ln.Addr().String()
}

// missing skips a test for want of a program; under continuous integration it fails.
func missing(t testing.TB, what, install string) {
	t.Helper()
	message := fmt.Sprintf("no %s here (try: apt-get install %s)", what, install)
	if os.Getenv("CI") == "true" {
		t.Fatal(message)
	}
	t.Skip(message)
}

// program finds a program, system directories included.
func program(t testing.TB, install string, candidates ...string) string {
	t.Helper()
	for _, c := range candidates {
		if path, err := exec.LookPath(c); err == nil {
			return path
		}
	}
	missing(t, candidates[len(candidates)-1], install)
	return ""
}

// start runs a child that ends when its input does, and returns its output.
func start(t testing.TB, dir, path string, args ...string) *bufio.Reader {
	t.Helper()
	cmd := exec.Command(path, args...)
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return bufio.NewReader(out)
}

func startScript(t testing.TB, interpreter, script string) string {
	t.Helper()
	line, err := start(t, "testdata", interpreter, script).ReadString('\n')
	if err != nil {
		t.Fatalf("%s: %v", script, err)
	}
	return net.JoinHostPort("127.0.0.1", strings.TrimSpace(line))
}

// startNginx starts nginx before a recorder, on sockets in a directory whose name is short enough.
func startNginx(t testing.TB) string {
	t.Helper()
	path := program(t, "nginx-light", "/usr/sbin/nginx", "nginx")
	dir, err := os.MkdirTemp("", "h1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	conf, err := os.ReadFile("testdata/nginx.conf")
	if err != nil {
		t.Fatal(err)
	}
	conf = bytes.ReplaceAll(conf, []byte("unix:"), []byte("unix:"+dir+"/"))
	if err := os.WriteFile(filepath.Join(dir, "nginx.conf"), conf, 0o600); err != nil {
		t.Fatal(err)
	}
	serveEcho(t, "unix", filepath.Join(dir, "recorder.sock"))
	start(t, dir, path, "-p", dir, "-c", filepath.Join(dir, "nginx.conf"), "-e", "stderr")
	front := filepath.Join(dir, "front.sock")
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("unix", front)
		if err == nil {
			c.Close()
			return front
		}
		if time.Now().After(deadline) {
			t.Fatalf("nginx does not listen: %v", err)
		}
	}
}

// oracles starts all of them, once for each test that asks.
func oracles(t testing.TB) []*oracle {
	t.Helper()
	node := program(t, "nodejs", "node")
	python := program(t, "python3", "/usr/bin/python3", "python3")
	return []*oracle{
		{name: "net/http", network: "tcp", addr: serveEcho(t, "tcp", "127.0.0.1:0"), drops: []string{"trailer"}},
		{name: "node", network: "tcp", addr: startScript(t, node, "server.js")},
		{name: "python", network: "tcp", addr: startScript(t, python, "server.py")},
		{name: "nginx", network: "unix", addr: startNginx(t), drops: []string{"te", "expect", "trailer"}},
	}
}

// quote quotes wire, without the middle if it is long.
func quote(wire string) string {
	const most = 700
	if len(wire) <= most {
		return fmt.Sprintf("%q", wire)
	}
	return fmt.Sprintf("%q… %d bytes …%q", wire[:most/2], len(wire)-most, wire[len(wire)-most/2:])
}
