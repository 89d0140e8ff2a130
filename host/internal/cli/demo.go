package cli

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// demoHost is the host that the demo's upstream stands in for.
const demoHost = "api.anthropic.com"

// demoPython is the interpreter of the agent's program: the distribution's own, in the VM's image and in
// namespaces, which hold no home directory.
const demoPython = "/usr/bin/python3"

const demoAgentFile = `name = "demo-agent"
secrets = ["ANTHROPIC_API_KEY"]
`

// demoAgent is the workload. Each answer line is "name: value".
const demoAgent = `import os, socket, requests

print("variable:", os.environ.get("ANTHROPIC_API_KEY"))

r = requests.post("https://api.anthropic.com/v1/messages",
                  json={"model": "claude", "max_tokens": 64,
                        "messages": [{"role": "user", "content": "Hello"}]})
print("call:", r.status_code, r.json()["content"][0]["text"] if r.ok else r.text)
print("sent:", sorted(k for k in r.request.headers if "key" in k.lower() or "auth" in k.lower()))

r = requests.get("https://api.anthropic.com/v1/echo")
print("echo:", r.text.strip())

r = requests.get("https://example.com/")
print("elsewhere:", r.status_code, r.headers.get("torno-reason"), "-", r.text.strip())

try:
    s = socket.socket(socket.AF_UNIX)
    s.connect("/run/torno/b")
    print("broker: connected")
except OSError as e:
    print("broker:", e.strerror)
try:
    socket.socket(40, socket.SOCK_STREAM)  # AF_VSOCK
    print("vsock: opened")
except OSError as e:
    print("vsock:", e.strerror)
`

func newDemoCommand() *cobra.Command {
	var keep bool
	isolation := string(protocol.IsolationMicroVM)
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show the main job on this machine, end to end",
		Long: `Show the main job on this machine, end to end.

demo starts a broker with a temporary state directory, sets a key, boots a
microVM, runs a program there that has no key, and lets it call an HTTPS API.
The API is a real HTTPS server on loopback that answers only whether the right
key arrived. At the end all of the VM's memory is searched for the key. Nothing
of yours is touched. The first time it gets a kernel and an image for the VM,
from Debian; otherwise nothing leaves the machine.

Each step says what was tried and what came of it; the last line is the verdict,
and the exit status agrees with it.`,
		Example: "  torno demo\n  torno demo --keep    # leave the directory, to look around",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runDemo(cmd.Context(), cmd.OutOrStdout(), protocol.Isolation(isolation), keep)
		},
	}
	cmd.Flags().StringVar(&isolation, "isolation", isolation, "where the program runs: microvm or namespace")
	cmd.Flags().BoolVar(&keep, "keep", false, "leave the demo's directory behind")
	return cmd
}

// A demo is one run of it.
type demo struct {
	out      io.Writer
	dir      string
	self     string
	key      string
	upstream *demoUpstream
	where    protocol.Isolation
	failed   int
	started  time.Time
}

func runDemo(ctx context.Context, out io.Writer, where protocol.Isolation, keep bool) error {
	if where == protocol.IsolationMicroVM {
		if err := ensureImages(ctx); err != nil {
			return err
		}
	} else if err := exec.Command(demoPython, "-c", "import requests").Run(); err != nil {
		return fmt.Errorf("the demo's agent needs %s with requests: %w", demoPython, err)
	}
	random := make([]byte, 24)
	if _, err := rand.Read(random); err != nil {
		return err
	}
	d := &demo{out: out, where: where, key: "sk-ant-demo-" + hex.EncodeToString(random), started: time.Now()}
	var err error
	if d.self, err = os.Executable(); err != nil {
		return err
	}
	if d.dir, err = os.MkdirTemp("", "torno-demo"); err != nil {
		return err
	}
	if keep {
		fmt.Fprintf(out, "directory: %s\n\n", d.dir)
	} else {
		defer os.RemoveAll(d.dir)
	}
	if d.upstream, err = startDemoUpstream(demoHost, d.key); err != nil {
		return err
	}
	defer d.upstream.Close()
	if err := d.prepare(); err != nil {
		return err
	}
	stop, err := d.serve(ctx)
	if err != nil {
		return err
	}
	defer stop()
	return d.show(ctx)
}

// prepare writes the files of the demo.
func (d *demo) prepare() error {
	config := fmt.Sprintf("[[upstream]]\nhost = %q\ndial = %q\nca = %q\n", demoHost, d.upstream.addr, filepath.Join(d.dir, "ca.pem"))
	if err := os.Chmod(d.dir, 0o755); err != nil { // the workload's user reads its program here
		return err
	}
	for name, content := range map[string]string{
		"broker.toml": config, "ca.pem": string(d.upstream.ca),
		"work/torno.toml": demoAgentFile, "work/agent.py": demoAgent,
	} {
		path := filepath.Join(d.dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// torno returns torno with args, with the demo's own state.
func (d *demo) torno(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, d.self, args...)
	cmd.Dir = filepath.Join(d.dir, "work")
	cmd.Env = append(os.Environ(), "TORNO_STATE="+filepath.Join(d.dir, "state"), "XDG_RUNTIME_DIR="+filepath.Join(d.dir, "rt"))
	return cmd
}

// serve starts the broker and waits until it answers.
func (d *demo) serve(ctx context.Context) (stop func(), err error) {
	var log bytes.Buffer
	cmd := d.torno(ctx, "serve", "--config", filepath.Join(d.dir, "broker.toml"))
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	stop = func() {
		_ = cmd.Process.Signal(os.Interrupt)
		select {
		case <-ended:
		case <-time.After(5 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
		}
	}
	for range 100 {
		if d.torno(ctx, "sessions", "list").Run() == nil {
			return stop, nil
		}
		select {
		case <-ended:
			return nil, fmt.Errorf("torno serve ended:\n%s", &log)
		case <-time.After(100 * time.Millisecond):
		}
	}
	stop()
	return nil, fmt.Errorf("torno serve did not answer within 10 s:\n%s", &log)
}

// show runs the steps and prints the verdict.
func (d *demo) show(ctx context.Context) error {
	fmt.Fprintln(d.out, "An operator sets a key; it is sealed, and nobody can read it back:")
	d.command("torno secrets set demo-agent ANTHROPIC_API_KEY=-")
	set := d.torno(ctx, "secrets", "set", "demo-agent", "ANTHROPIC_API_KEY=-")
	set.Stdin = strings.NewReader(d.key)
	if out, err := set.CombinedOutput(); err != nil {
		return fmt.Errorf("setting the key: %w\n%s", err, out)
	}

	proofFile := filepath.Join(d.dir, "proof.json")
	said, args := "in a microVM, with no network card", []string{"run", "--agent", "demo-agent", "--prove"}
	if d.where == protocol.IsolationNamespace {
		said, args = "in namespaces of its own, with no network device but lo", []string{"run", "--agent", "demo-agent", "--isolation", "namespace"}
	}
	fmt.Fprintf(d.out, "\nA program without a key runs %s:\n", said)
	d.command("torno " + strings.Join(args, " ") + " -- python3 agent.py")
	args = append(args, "--trust-config")
	if d.where == protocol.IsolationMicroVM {
		args = append(args, "--proof-file", proofFile)
	}
	run := d.torno(ctx, append(args, "--", demoPython, "agent.py")...)
	var stderr bytes.Buffer
	run.Stderr = &stderr
	out, err := run.Output()
	if err != nil {
		return fmt.Errorf("running the agent: %w\n%s%s", err, out, &stderr)
	}
	says := answers(string(out))
	d.step("its environment holds no key", says["variable"] == "None", "ANTHROPIC_API_KEY is "+says["variable"])
	d.step("its call to "+demoHost+" is answered", strings.HasPrefix(says["call"], "200 ") && d.upstream.right.Load() > 0, says["call"])
	d.step("it sent no credential itself", says["sent"] == "[]", "credential fields in its request: "+says["sent"])
	d.step("an answer that repeats the key is masked", strings.Contains(says["echo"], "****") && !strings.Contains(says["echo"], d.key), says["echo"])
	d.step("another host is refused, with the reason", strings.HasPrefix(says["elsewhere"], "403 denied"), beforeDash(says["elsewhere"]))
	d.step("it can't speak to the broker itself", says["broker"] == "Permission denied" || says["broker"] == "No such file or directory", "the broker's socket: "+says["broker"])
	d.step("nor open a socket to the host", says["vsock"] != "" && says["vsock"] != "opened", "AF_VSOCK: "+says["vsock"])
	d.step("the key is nowhere in what it printed", !strings.Contains(string(out)+stderr.String(), d.key), fmt.Sprintf("%d bytes searched", len(out)+stderr.Len()))

	fmt.Fprintln(d.out, "\nEverything was recorded, in a chain that shows edits:")
	for _, args := range [][]string{{"audit", "tail", "--last", "6"}, {"audit", "verify"}} {
		d.command("torno " + strings.Join(args, " "))
		out, err := d.torno(ctx, args...).CombinedOutput()
		fmt.Fprintln(d.out, indent(string(out)))
		if args[1] == "verify" {
			d.step("the audit verifies", err == nil, "")
		}
	}
	if d.where == protocol.IsolationMicroVM {
		d.showProof(proofFile)
	}
	return d.verdict()
}

// showProof tells what the search of the VM's memory found.
func (d *demo) showProof(file string) {
	fmt.Fprintln(d.out, "\nAll of the VM's memory was searched while its program had just ended:")
	var proofs []control.Proof
	b, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(b, &proofs)
	}
	if err != nil || len(proofs) == 0 {
		d.step("the memory was searched", false, fmt.Sprint(err))
		return
	}
	p := proofs[len(proofs)-1]
	d.step("what must be there is found", p.Control, fmt.Sprintf("%s of %s in use, all of it in %.2f s", mebibytes(p.Present), mebibytes(p.Size), p.Seconds))
	d.step("the key is nowhere in it", p.Outcome == control.ProofClean, fmt.Sprintf("no run of it in any of %d encodings (%d windows)", p.Encodings, p.Windows))
}

func (d *demo) command(line string) { fmt.Fprintf(d.out, "  $ %s\n", line) }

// step prints one thing that was tried.
func (d *demo) step(what string, ok bool, detail string) {
	mark := "ok  "
	if !ok {
		mark = "FAIL"
		d.failed++
	}
	fmt.Fprintln(d.out, strings.TrimRight(fmt.Sprintf("  %s  %-42s %s", mark, what, detail), " "))
}

func (d *demo) verdict() error {
	took := time.Since(d.started).Round(100 * time.Millisecond)
	if d.failed > 0 {
		fmt.Fprintf(d.out, "\nverdict: FAILED, %d of the steps (%v)\n", d.failed, took)
		return errors.New("the demo failed")
	}
	fmt.Fprintf(d.out, "\nverdict: the call was made with a key that the program never had (%v)\n", took)
	return nil
}

// answers reads lines of "name: value".
func answers(out string) map[string]string {
	m := map[string]string{}
	for line := range strings.Lines(out) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ": "); ok {
			m[name] = value
		}
	}
	return m
}

// beforeDash cuts an answer's advice off, so that a step stays on one line.
func beforeDash(s string) string {
	s, _, _ = strings.Cut(s, " - ")
	return s
}

func indent(s string) string {
	return "    " + strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n    ")
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}
