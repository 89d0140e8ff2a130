package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"
)

// agent is whom the load generator runs as.
const agent = "bench"

// tornoConf leads the upstream's name to our upstream, and lets a session record as much as we ask: a
// session's own audit budget would refuse the load. All else is as torno comes.
const tornoConf = `[[upstream]]
host = %[1]q
dial = %[2]q
ca = %[3]q

[[upstream]]
host = %[1]q
port = %[4]d
dial = %[2]q
ca = %[3]q

[limits]
audit_records_per_second = 1048576
audit_mib_per_hour = 1048576
`

// startTorno starts a broker with a state of its own, and a session whose workload is the load generator.
func (h *house) startTorno(ctx context.Context, bin string) (*subject, error) {
	dir, err := os.MkdirTemp(h.dir, "t")
	if err != nil {
		return nil, err
	}
	s := &subject{target: target{nameTorno, upstreamHost + ":443", true}, remove: dir}
	if err := s.startTorno(ctx, h, bin, dir); err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

func (s *subject) startTorno(ctx context.Context, h *house, bin, dir string) error {
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	work := filepath.Join(dir, "work")
	program := filepath.Join(work, "bench")
	if err := os.Mkdir(work, 0o755); err != nil {
		return err
	}
	if err := copyFile(program, h.self); err != nil {
		return err
	}
	conf := filepath.Join(dir, "broker.toml")
	if err := os.WriteFile(conf, fmt.Appendf(nil, tornoConf, upstreamHost, h.upstream, h.pki.ca, signedPort), 0o600); err != nil {
		return err
	}
	torno := filepath.Join(bin, "torno")
	env := []string{"TORNO_STATE=" + filepath.Join(dir, "state"), "XDG_RUNTIME_DIR=" + filepath.Join(dir, "rt")}
	broker, err := spawn("torno serve", torno, []string{"serve", "--log", "warn", "--config", conf}, env, work)
	if err != nil {
		return err
	}
	s.parts = append(s.parts, broker)
	if err := waitForBroker(ctx, broker, torno, env, work); err != nil {
		return err
	}
	for _, secret := range [][]string{
		{"BENCH_API_KEY=" + credential, "--header", "Authorization: Bearer {BENCH_API_KEY}", "--host", upstreamHost},
		{"BENCH_AWS_KEY=" + signingID + ":" + credential, "--as", "sigv4:service=s3,region=eu-central-1", "--host", fmt.Sprint(upstreamHost, ":", signedPort)},
	} {
		set := exec.CommandContext(ctx, torno, append([]string{"secrets", "set", agent}, secret...)...)
		set.Env, set.Dir = append(os.Environ(), env...), work
		if out, err := set.CombinedOutput(); err != nil {
			return fmt.Errorf("torno secrets set: %w: %s", err, bytes.TrimSpace(out))
		}
	}
	session, err := spawn("torno run", torno, []string{"run", "--agent", agent, "--isolation", "namespace", "--", program, "load"}, env, work)
	if err != nil {
		return err
	}
	s.parts = append(s.parts, session)
	s.load = newLoader(session)
	if _, err := s.call(ctx, command{Op: opClose}); err != nil { // the session has begun
		return err
	}
	brokerPID, runPID := broker.cmd.Process.Pid, session.cmd.Process.Pid
	s.roots = []int{brokerPID, runPID}
	s.not = func() ([]int, error) { return workloadBelow(runPID, program) }
	s.both = func() ([]int, error) {
		guest, err := guestBelow(runPID, program)
		return []int{brokerPID, guest}, err
	}
	return nil
}

// waitForBroker waits until the broker answers.
func waitForBroker(ctx context.Context, broker *child, torno string, env []string, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		ask := exec.CommandContext(ctx, torno, "sessions", "list", "--json")
		ask.Env, ask.Dir = append(os.Environ(), env...), dir
		err := ask.Run()
		if err == nil {
			return nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-broker.ended:
			return broker.failure(ctx, err)
		case <-ctx.Done():
			return broker.failure(ctx, err)
		}
	}
}

// workloadBelow returns the processes below root that run program: the load generator itself, by its
// number outside.
func workloadBelow(root int, program string) ([]int, error) {
	all, err := processes()
	if err != nil {
		return nil, err
	}
	found := below(all, []int{root}, nil)
	found = slices.DeleteFunc(found, func(pid int) bool {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		return err != nil || !bytes.HasPrefix(line, []byte(program+"\x00load\x00"))
	})
	if len(found) == 0 {
		return nil, errors.New("the load generator is not below torno run")
	}
	return found, nil
}

// guestBelow returns torno-guest: the workload's parent.
func guestBelow(root int, program string) (int, error) {
	found, err := workloadBelow(root, program)
	if err != nil {
		return 0, err
	}
	all, err := processes()
	if err != nil {
		return 0, err
	}
	return all[found[0]].parent, nil
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
