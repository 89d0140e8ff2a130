package workload

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"torno.internal/guest/internal/nstest"
	"torno.internal/protocol"
)

func shell(script string) protocol.Workload {
	return protocol.Workload{Argv: []string{"sh", "-c", script}, User: protocol.UserAgent}
}

func TestRunStreams(t *testing.T) {
	nstest.Run(t, func(t *testing.T) {
		for _, test := range []struct {
			name, script, stdin string
			wantOut, wantErr    string
			want                protocol.Exit
		}{
			{"echo", "cat; echo problem >&2; exit 3", "hello\n", "hello\n", "problem\n", protocol.Exit{Code: 3}},
			{"empty", "cat", "", "", "", protocol.Exit{}},
			{"unread input", "exec true", strings.Repeat("x", 1<<20), "", "", protocol.Exit{}},
			{"reopened", "echo a > /dev/stdout; echo b > /proc/self/fd/2", "", "a\n", "b\n", protocol.Exit{}},
			{"signal", "kill -USR1 $$", "", "", "", protocol.Exit{Code: 138, Signal: "USR1"}},
			{"left behind", "sleep 1000 & echo started", "", "started\n", "", protocol.Exit{}},
			{"escaped its session", "setsid sleep 1000 & echo started", "", "started\n", "", protocol.Exit{}},
			{"orphans", "for i in 1 2 3; do (sleep 0.01 &) ; done; for i in $(seq 100); do [ $(ls /proc | grep -c '^[0-9]') = 5 ] && break; sleep 0.1; done; ls /proc | grep -c '^[0-9]'", "", "4\n", "", protocol.Exit{}}, // process 1, sh, ls and grep
			{"identity", "id -u; id -g; id -G; pwd; umask; ulimit -c; ls /proc/self/fd | wc -l", "", "1000\n1000\n1000\n/home/agent\n0022\n0\n4\n", "", protocol.Exit{}},
		} {
			h := newHost(t, strings.NewReader(test.stdin))
			got := h.start(t.Context(), shell(test.script))()
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("%s: exit (-want +got):\n%s", test.name, diff)
			}
			if h.out.String() != test.wantOut || h.err.String() != test.wantErr {
				t.Errorf("%s: stdout %q, stderr %q, want %q, %q", test.name, h.out.String(), h.err.String(), test.wantOut, test.wantErr)
			}
			if h.exit == nil || *h.exit != got || h.finished[protocol.PathExit] != 3 {
				t.Errorf("%s: host heard %v in order %v, want %v last", test.name, h.exit, h.finished, got)
			}
		}
	})
}

// Everything that was written arrives, whole, however slowly it is read, before the exit does.
func TestRunLosesNothing(t *testing.T) {
	nstest.Run(t, func(t *testing.T) {
		h := newHost(t, strings.NewReader(""))
		h.slow = time.Millisecond
		exit := h.start(t.Context(), shell("head -c 5000000 /dev/zero | tr '\\0' x; head -c 300000 /dev/zero >&2; exit 9"))()
		if exit.Code != 9 || h.out.Len() != 5000000 || h.err.Len() != 300000 || bytes.ContainsFunc(h.out.Bytes(), func(r rune) bool { return r != 'x' }) {
			t.Errorf("exit %v, %d and %d bytes, want 9, 5000000 and 300000", exit, h.out.Len(), h.err.Len())
		}
		if h.finished[protocol.PathExit] != 3 {
			t.Errorf("order of ends: %v, want exit last", h.finished)
		}
	})
}

func TestRunBinaryInput(t *testing.T) {
	nstest.Run(t, func(t *testing.T) {
		input := make([]byte, 300000)
		for i := range input {
			input[i] = byte(i * 7)
		}
		h := newHost(t, bytes.NewReader(input))
		if exit := h.start(t.Context(), shell("cat"))(); exit.Code != 0 || !bytes.Equal(h.out.Bytes(), input) {
			t.Errorf("exit %v, %d bytes came back of %d", exit, h.out.Len(), len(input))
		}
	})
}

func TestRunCannotStart(t *testing.T) {
	nstest.Run(t, func(t *testing.T) {
		for path, content := range map[string]string{"/tmp/plain": "x", "/tmp/lost": "#!/no/such/interpreter\n", "/tmp/noexec": "\x7fGARBAGE"} {
			if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		os.Chmod("/tmp/plain", 0o644)
		os.Mkdir("/tmp/closed", 0o700)
		for _, test := range []struct {
			w    protocol.Workload
			code int
			text string
		}{
			{protocol.Workload{Argv: []string{"no-such-command"}}, 127, "not found"},
			{protocol.Workload{Argv: []string{"/no/such/file"}}, 127, "no such file"},
			{protocol.Workload{Argv: []string{"/tmp/lost"}}, 127, "no such file"},
			{protocol.Workload{Argv: []string{"/tmp/plain"}}, 126, "permission denied"},
			{protocol.Workload{Argv: []string{"/tmp"}}, 126, "permission denied"},
			{protocol.Workload{Argv: []string{"plain"}, Env: []string{"PATH=/none:/tmp"}}, 126, "permission denied"},
			{protocol.Workload{Argv: []string{"/tmp/noexec"}}, 126, "exec format error"},
			{protocol.Workload{Argv: []string{"true"}, Dir: "/tmp/closed"}, 125, "permission denied"},
			{protocol.Workload{Argv: []string{"true"}, Dir: "/none"}, 125, "no such file"},
			{protocol.Workload{Argv: []string{}}, 125, "empty"},
			{protocol.Workload{Argv: []string{"true"}, User: "bob"}, 125, "unknown user"},
		} {
			h := newHost(t, strings.NewReader(""))
			exit := h.start(t.Context(), test.w)()
			if exit.Code != test.code || !strings.Contains(exit.Error, test.text) {
				t.Errorf("%v: %+v, want code %d and %q", test.w, exit, test.code, test.text)
			}
			if exit.Hint == "" && test.code != 125 {
				t.Errorf("%v: no hint", test.w)
			}
			if h.exit == nil || *h.exit != exit {
				t.Errorf("%v: host heard %v", test.w, h.exit)
			}
		}
	})
}

func TestRunEvents(t *testing.T) {
	nstest.Run(t, func(t *testing.T) {
		idle := iotestNever{}
		for _, test := range []struct {
			name, script string
			event        any
			want         protocol.Exit
		}{
			{"INT", "echo ready; exec sleep 100", protocol.RunEvent{Type: protocol.RunSignal, Signal: "INT"}, protocol.Exit{Code: 130, Signal: "INT"}},
			{"trapped", "trap 'exit 7' HUP; sleep 100 & echo ready; wait", // dash loses signals that come while it forks: nothing is forked once it is ready
				protocol.RunEvent{Type: protocol.RunSignal, Signal: "HUP"}, protocol.Exit{Code: 7}},
			{"stop", "echo ready; sleep 100", protocol.RunEvent{Type: protocol.RunStop}, protocol.Exit{Code: 143, Signal: "TERM"}},
			{"stopped process", "echo ready; kill -STOP $$", protocol.RunEvent{Type: protocol.RunStop}, protocol.Exit{Code: 143, Signal: "TERM"}},
			{"nonsense", "echo ready; sleep 100", []byte("{]"), protocol.Exit{Code: 143, Signal: "TERM"}},
			{"endless", "echo ready; sleep 100", bytes.Repeat([]byte(" "), maxEvent+1), protocol.Exit{Code: 143, Signal: "TERM"}},
		} {
			h := newHost(t, idle)
			wait := h.start(t.Context(), shell(test.script))
			if !h.output("ready") {
				t.Fatalf("%s: does not start", test.name)
			}
			h.events <- protocol.RunEvent{Type: "of the future"}
			h.events <- protocol.RunEvent{Type: protocol.RunSignal, Signal: "RTMIN+3"}
			h.events <- test.event
			if diff := cmp.Diff(test.want, wait()); diff != "" {
				t.Errorf("%s: (-want +got):\n%s", test.name, diff)
			}
		}
	})
}

// Signals that torno itself was told to ignore, by nohup or a script's &, are the workload's to heed.
func TestRunHeedsSignals(t *testing.T) {
	nstest.Run(t, func(t *testing.T) {
		signal.Ignore(unix.SIGINT, unix.SIGHUP)
		for _, name := range []string{"INT", "HUP"} {
			h := newHost(t, iotestNever{})
			wait := h.start(t.Context(), shell("echo ready; exec sleep 100"))
			if !h.output("ready") {
				t.Fatal("does not start")
			}
			h.events <- protocol.RunEvent{Type: protocol.RunSignal, Signal: name}
			if got, want := wait(), (protocol.Exit{Code: 128 + int(signals[name]), Signal: name}); got != want {
				t.Errorf("%s: %v, want %v", name, got, want)
			}
		}
	})
}

// An iotestNever never has anything to read.
type iotestNever struct{}

func (iotestNever) Read([]byte) (int, error) {
	time.Sleep(30 * time.Second)
	return 0, io.EOF
}

func TestRunHostGone(t *testing.T) {
	nstest.Run(t, func(t *testing.T) {
		pr, pw := io.Pipe()
		defer pw.Close()
		h := newHost(t, pr)
		wait := h.start(t.Context(), shell("echo ready; while :; do echo more; done"))
		if !h.output("ready") {
			t.Fatal("does not start")
		}
		h.hangUp()
		if exit := wait(); exit.Signal != "TERM" && exit.Signal != "PIPE" {
			t.Errorf("exit %v, want TERM", exit)
		}
	})
}

func TestRunContextEnds(t *testing.T) {
	nstest.Run(t, func(t *testing.T) {
		h := newHost(t, strings.NewReader(""))
		ctx, cancel := context.WithCancelCause(t.Context())
		wait := h.start(ctx, shell("trap '' TERM; echo ready; while :; do sleep 0.1; done"))
		if !h.output("ready") {
			t.Fatal("does not start")
		}
		start := time.Now()
		cancel(errors.New("shutdown"))
		if exit := wait(); exit.Signal != "KILL" {
			t.Errorf("exit %v, want KILL", exit)
		}
		if d := time.Since(start); d < stopGrace || d > stopGrace+time.Minute {
			t.Errorf("killed after %v, want %v", d, stopGrace)
		}
	})
}

func TestRunTerminal(t *testing.T) {
	nstest.Run(t, func(t *testing.T) {
		pr, pw := io.Pipe()
		h := newHost(t, pr)
		w := shell("stty size; tty; test -t 2 && echo err is a terminal; trap 'stty size' WINCH; echo ready; read x; echo got $x; trap 'echo interrupted; exit 5' INT; sleep 100 & echo again; while :; do wait; done")
		w.TTY, w.Rows, w.Cols = true, 30, 100
		wait := h.start(t.Context(), w)
		expect := func(want string) {
			t.Helper()
			if !h.output(want) {
				t.Fatalf("no %q in %q", want, h.out.String())
			}
		}
		expect("30 100\r\n/dev/pts/")
		expect("err is a terminal\r\n")
		expect("ready")
		h.events <- protocol.RunEvent{Type: protocol.RunWinsize, Rows: 41, Cols: 123}
		pw.Write([]byte("\n"))
		expect("41 123")
		expect("again")
		pw.Write([]byte{3}) // ^C is a byte for the terminal, which makes it a signal
		if exit := wait(); exit.Code != 5 {
			t.Errorf("exit %v, want 5; output %q", exit, h.out.String())
		}
		expect("interrupted")
	})
}

func TestEnvironment(t *testing.T) {
	got := environment("agent", "/bin/sh",
		[]string{"TERM=xterm", "LANG=C.UTF-8", "SSL_CERT_FILE=/mine", "https_proxy=http://x", "HTTP_PROXY=x", "no equals", "=x", "NUL=\x00"},
		[]string{"TOKEN=placeholder", "PATH=/opt/bin"}, []string{"SSL_CERT_FILE=/run/torno-guest/ca-bundle.pem"}, []string{"TORNO_PROXY=http://127.0.0.1:3128"})
	want := []string{"PATH=/opt/bin", "HOME=/home/agent", "USER=agent", "LOGNAME=agent", "SHELL=/bin/sh", "TERM=xterm", "LANG=C.UTF-8",
		"SSL_CERT_FILE=/run/torno-guest/ca-bundle.pem", "TOKEN=placeholder", "TORNO_PROXY=http://127.0.0.1:3128"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestWrongToken(t *testing.T) {
	nstest.Run(t, func(t *testing.T) {
		h := newHost(t, strings.NewReader(""))
		channel := h.channel()
		channel.Token = protocol.Token{8}
		var status *protocol.StatusError
		if _, err := channel.get(t.Context(), protocol.PathStdin); !errors.As(err, &status) || status.Status != protocol.StatusToken {
			t.Errorf("got %v, want wrong token", err)
		}
	})
}
