package soak

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// WorkloadCommand is the first argument that makes a program which calls Workload the workload of a real session.
const WorkloadCommand = "soak-workload"

// Workload runs inside a session that torno run started: it makes one exchange after the other until standard input ends,
// and prints the path of each that is answered.
func Workload() error {
	done := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(done)
	}()
	client := &http.Client{Timeout: guestTimeout}
	for i := 0; ; i++ {
		select {
		case <-done:
			return nil
		default:
		}
		path := fmt.Sprintf("%sreal/%d", numbered, i)
		resp, err := client.Get("https://" + host + path)
		if err != nil {
			time.Sleep(pause)
			continue
		}
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if err == nil && resp.StatusCode == http.StatusOK {
			fmt.Println(path)
		} else {
			time.Sleep(pause)
		}
	}
}

// A realGuest is a session of torno run, with its guest and a workload.
type realGuest struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	ended chan error
	said  io.ReadCloser

	mu       sync.Mutex
	answered []string
	changed  chan struct{} // holds one wish to look again
}

// realSession starts one, as agentWork, in a namespace of its own.
func (h *house) realSession() (*realGuest, error) {
	work := filepath.Join(h.dir, "work")
	if err := os.MkdirAll(work, 0o755); err != nil {
		return nil, err
	}
	program := filepath.Join(work, "workload")
	if err := copyProgram(program); err != nil {
		return nil, err
	}
	g := &realGuest{cmd: exec.Command(h.torno, "run", "--agent", agentWork, "--isolation", "namespace", "--", program, WorkloadCommand), ended: make(chan error, 1), changed: make(chan struct{}, 1)}
	g.cmd.Env, g.cmd.Dir, g.cmd.Stderr = h.env(), work, h.log
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	var err error
	if g.stdin, err = g.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	var out *os.File
	if g.said, out, err = os.Pipe(); err != nil {
		return nil, err
	}
	g.cmd.Stdout = out
	err = g.cmd.Start()
	out.Close()
	if err != nil {
		return nil, err
	}
	go func() { g.ended <- g.cmd.Wait() }()
	go g.listen()
	return g, nil
}

// listen notes what the workload says was answered.
func (g *realGuest) listen() {
	lines := bufio.NewScanner(g.said)
	for lines.Scan() {
		g.mu.Lock()
		g.answered = append(g.answered, strings.TrimSpace(lines.Text()))
		g.mu.Unlock()
		select {
		case g.changed <- struct{}{}:
		default:
		}
	}
}

// answers is how many exchanges were answered so far.
func (g *realGuest) answers() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.answered)
}

// goesOn waits until n more exchanges than before were answered.
func (g *realGuest) goesOn(ctx context.Context, before, n int) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for g.answers() < before+n {
		select {
		case <-g.changed:
		case <-ctx.Done():
			return fmt.Errorf("the running session does not go on: %d answers: %w", g.answers()-before, ctx.Err())
		case err := <-g.ended:
			g.ended <- err
			return fmt.Errorf("the running session has ended: %w", err)
		}
	}
	return nil
}

// stop ends the workload, and so the session.
func (g *realGuest) stop() error {
	g.stdin.Close()
	defer g.said.Close()
	select {
	case err := <-g.ended:
		return err
	case <-time.After(patience):
		_ = g.cmd.Process.Kill()
		<-g.ended
		return fmt.Errorf("torno run does not end within %v of its workload", patience)
	}
}

// copyProgram puts this program where a workload's user may run it.
func copyProgram(to string) error {
	in, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	if _, err = io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}
