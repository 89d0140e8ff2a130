package soak

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"torno.internal/protocol/control"
)

// config leads the upstream's name to ours, and lets a session record as much as we ask: its own audit budget would refuse
// the load. All else is as torno comes.
const config = `[[upstream]]
host = %q
dial = %q
ca = %q

[limits]
audit_records_per_second = 1048576
audit_mib_per_hour = 1048576

[metrics]
listen = "unix://%s"
`

// A house is one broker process with a state of its own, and its upstream.
type house struct {
	torno    string // the program
	dir      string // all that is below it is the house's own
	state    string
	runtime  string
	conf     string
	metrics  string // socket
	upstream *upstream
	client   *http.Client

	cmd   *exec.Cmd
	ended chan struct{} // closed when cmd has ended
	log   *os.File
}

// newHouse makes the places and the upstream, and starts no broker.
func newHouse(torno string) (*house, error) {
	dir, err := os.MkdirTemp("", "so") // short, for the sockets' paths
	if err != nil {
		return nil, err
	}
	h := &house{torno: torno, dir: dir, state: filepath.Join(dir, "s"), runtime: filepath.Join(dir, "r"), conf: filepath.Join(dir, "broker.toml"), metrics: filepath.Join(dir, "r", "torno", "metrics")}
	if err := h.furnish(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return h, nil
}

func (h *house) furnish() error {
	var err error
	if err = errors.Join(os.Chmod(h.dir, 0o755), os.Mkdir(h.state, 0o700)); err != nil { // a workload's user goes through
		return err
	}
	if h.log, err = os.Create(filepath.Join(h.dir, "log")); err != nil {
		return err
	}
	if h.upstream, err = newUpstream(h.dir); err != nil {
		return err
	}
	if err := os.WriteFile(h.conf, fmt.Appendf(nil, config, host, h.upstream.addr, h.upstream.ca, h.metrics), 0o600); err != nil {
		return err
	}
	h.client = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", h.socket())
		},
		MaxIdleConnsPerHost: 16,
	}}
	return nil
}

func (h *house) socket() string { return filepath.Join(h.runtime, "torno", control.SocketName) }

// env is what torno's commands of this house run with.
func (h *house) env() []string {
	return append(os.Environ(), "TORNO_STATE="+h.state, "XDG_RUNTIME_DIR="+h.runtime)
}

// patience is how long is waited for what comes at once on a machine that is not busy.
const patience = time.Minute

// start starts the broker and returns how long it took until it answered.
func (h *house) start(ctx context.Context) (time.Duration, error) {
	h.cmd, h.ended = exec.Command(h.torno, "serve", "--config", h.conf), make(chan struct{})
	h.cmd.Env, h.cmd.Dir, h.cmd.Stdout, h.cmd.Stderr = h.env(), "/", h.log, h.log
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	began := time.Now()
	if err := h.cmd.Start(); err != nil {
		return 0, err
	}
	cmd, ended := h.cmd, h.ended
	go func() { _ = cmd.Wait(); close(ended) }()
	for {
		var health control.Health
		if h.call(ctx, "GET", control.PathHealth, nil, &health) == nil && health.PID == h.cmd.Process.Pid {
			return time.Since(began), nil
		}
		select {
		case <-h.ended:
			return 0, fmt.Errorf("torno serve ended at once: %s", h.lastWords())
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(2 * time.Millisecond):
		}
		if time.Since(began) > patience {
			return 0, fmt.Errorf("torno serve does not answer within %v: %s", patience, h.lastWords())
		}
	}
}

// kill ends the broker in the middle of whatever it does.
func (h *house) kill() {
	_ = h.cmd.Process.Kill()
	<-h.ended
	h.client.CloseIdleConnections()
}

// stop ends the broker in order, within patience.
func (h *house) stop() error {
	if h.cmd == nil {
		return nil
	}
	_ = h.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-h.ended:
	case <-time.After(patience):
		h.kill()
		return fmt.Errorf("torno serve does not end within %v of SIGTERM", patience)
	}
	h.client.CloseIdleConnections()
	return nil
}

// close ends all that is the house's own.
func (h *house) close() error {
	err := h.stop()
	h.upstream.stop()
	return errors.Join(err, h.log.Close(), os.RemoveAll(h.dir))
}

// lastWords is the end of the broker's log.
func (h *house) lastWords() string {
	b, err := os.ReadFile(h.log.Name())
	if err != nil {
		return err.Error()
	}
	return string(bytes.TrimSpace(b[max(0, len(b)-600):]))
}

// usage is what the broker's process holds.
func (h *house) usage() (usage, error) { return usageOf(h.cmd.Process.Pid) }

// gauges asks the broker's metrics how many goroutines there are, and how much of its heap is in use, in bytes.
func (h *house) gauges(ctx context.Context) (goroutines int, heap int64, err error) {
	t := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", h.metrics)
	}}
	req, err := http.NewRequestWithContext(ctx, "GET", "http://torno/metrics", nil)
	if err != nil {
		return 0, 0, err
	}
	resp, err := t.RoundTrip(req)
	if err != nil {
		return 0, 0, err
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, 0, err
	}
	found := map[string]float64{}
	for line := range strings.Lines(string(page)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if v, err := strconv.ParseFloat(value, 64); err == nil {
			found[name] = v
		}
	}
	if _, ok := found["go_gc_heap_live_bytes"]; !ok || found["go_goroutines"] == 0 {
		return 0, 0, errors.New("the metrics say nothing of goroutines and heap")
	}
	return int(found["go_goroutines"]), int64(found["go_gc_heap_live_bytes"]), nil
}

// call asks the control API and decodes its answer into out, unless that is nil. A refusal is a *control.Error.
func (h *house) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://torno"+path, body)
	if err != nil {
		return err
	}
	resp, err := h.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		var e control.Error
		if err := json.Unmarshal(b, &e); err != nil {
			return fmt.Errorf("%s: %s", resp.Status, b)
		}
		return &e
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(b, out)
}

// run runs a torno command of this house and returns what it says.
func (h *house) run(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, h.torno, args...)
	cmd.Env, cmd.Dir = h.env(), h.dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("torno %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return string(out), err
}

// raiseFiles lets this process, and what it starts, open n files, or as many as may be, and returns how many that are.
func raiseFiles(n uint64) (uint64, error) {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 0, err
	}
	if l.Cur >= n {
		return l.Cur, nil
	}
	err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: max(l.Max, n)})
	if err != nil { // only what is allowed already
		n = l.Max
		err = unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: n})
	}
	return n, err
}
