package boot

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"torno.internal/guest/internal/nstest"
	"torno.internal/guest/internal/workload"
	"torno.internal/protocol"
)

// TestMain makes the test binary the workload's stage too.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == workload.Stage {
		os.Exit(workload.Exec())
	}
	os.Exit(m.Run())
}

func (b *fakeBroker) boot(script string) (code int, log string) {
	return b.bootWithin(b.t.Context(), script)
}

func (b *fakeBroker) bootWithin(ctx context.Context, script string) (code int, log string) {
	b.hello.Workload.Argv = []string{"sh", "-c", script}
	var lines strings.Builder
	code = Run(ctx, Config{
		Broker: b.broker, Run: b.run, Version: "test",
		Log: slog.New(slog.NewTextHandler(&lines, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	return code, lines.String()
}

func TestBootToWorkload(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("needs curl; try: apt-get install curl")
	}
	nstest.Run(t, func(t *testing.T) {
		b := newBroker(t)
		b.hello.Env = []string{"ANTHROPIC_API_KEY=sk-ant-placeholder"}
		b.hello.Workload.Env = []string{"TERM=xterm-256color"}
		code, log := b.boot(`
			curl -sS https://api.example.com/v1/messages?a=b
			curl -sS http://plain.example/
			curl -sS -x "$TORNO_PROXY" https://proxied.example/x
			hostname
			cat /etc/resolv.conf
			getent hosts localhost | cut -d' ' -f1
			env | grep -i _proxy=
			echo $ANTHROPIC_API_KEY $TERM
			test -d /proc/1 && echo process 1 is visible
			echo done >&2
			exit 3`)
		stdout, stderr, exit := b.result()
		want := `GET https://api.example.com/v1/messages?a=b
GET http://plain.example/
GET https://proxied.example/x
torno
nameserver 192.0.2.2
::1
TORNO_PROXY=http://127.0.0.1:3128
sk-ant-placeholder xterm-256color
`
		normal := strings.NewReplacer(":443/", "/", ":80/", "/").Replace(stdout)
		if diff := cmp.Diff(want, normal); diff != "" || stderr != "done\n" {
			t.Errorf("stdout (-want +got):\n%s\nstderr %q", diff, stderr)
		}
		if code != 3 || exit.Code != 3 {
			t.Errorf("exit %d, host heard %+v, want 3; log:\n%s", code, exit, log)
		}
	})
}

// The workload never starts unless the self-test came back with the broker's refusal.
func TestSelfTestFailsClosed(t *testing.T) {
	nstest.Run(t, func(t *testing.T) {
		for name, forward := range map[string]func(protocol.Request) protocol.Response{
			"served":       func(protocol.Request) protocol.Response { return protocol.Response{Status: 200} },
			"other reason": func(protocol.Request) protocol.Response { r, _ := protocol.Refusal(protocol.ReasonDenied); return r },
			"no reason":    func(protocol.Request) protocol.Response { return protocol.Response{Status: 403} },
			"other status": func(protocol.Request) protocol.Response {
				return protocol.Response{Status: 200, Fields: protocol.Fields{{Name: protocol.FieldReason, Value: "self_test"}}}
			},
		} {
			b := newBroker(t)
			b.forward = forward
			code, log := b.boot("touch /tmp/started")
			_, _, exit := b.result()
			if code != protocol.ExitFailed || exit.Code != protocol.ExitFailed || !strings.Contains(exit.Error, "self-test") {
				t.Errorf("%s: exit %d, host heard %+v; log:\n%s", name, code, exit, log)
			}
			if _, err := os.Stat("/tmp/started"); err == nil {
				t.Fatalf("%s: the workload started", name)
			}
		}
	})
}

func TestBootWithoutBroker(t *testing.T) {
	nstest.Run(t, func(t *testing.T) {
		b := newBroker(t)
		b.broker.Path = "/tmp/nobody"
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if code, log := b.bootWithin(ctx, "true"); code != protocol.ExitFailed || !strings.Contains(log, "hello") {
			t.Errorf("exit %d, want %d; log:\n%s", code, protocol.ExitFailed, log)
		}
	})
}

// Attack 46: in namespaces, nothing of the kernel as a whole is touched, whatever the broker says of the
// isolation: no clock, no sysctl, no core pattern, no module switch.
func TestAttack46NamespaceLeavesTheKernelAlone(t *testing.T) {
	nstest.Run(t, func(t *testing.T) {
		before := kernelSwitches(t)
		b := newBroker(t)
		b.hello.Isolation = protocol.IsolationMicroVM
		b.hello.Time = time.Now().Add(48 * time.Hour)
		began, monotonic := time.Now().Round(0), time.Now()
		_, log := b.boot("true")
		if drift := time.Since(began) - time.Since(monotonic); drift.Abs() > time.Second {
			t.Errorf("the clock moved by %v", drift)
		}
		if diff := cmp.Diff(before, kernelSwitches(t)); diff != "" {
			t.Errorf("switches of the kernel changed (-before +after):\n%s", diff)
		}
		for _, s := range slices.Concat(beforeHello, fromHello) {
			skipped := strings.Contains(log, `msg="boot: skipped" step=`+s.name+" ") || strings.Contains(log, `msg="boot: skipped" step="`+s.name+`" `)
			if want := s.needs != needsNothing; skipped != want {
				t.Errorf("step %q needs %v: skipped %v, want %v; log:\n%s", s.name, s.needs, skipped, want, log)
			}
		}
		for _, name := range []string{"modules", "root", "clock", "sysctls"} {
			if !strings.Contains(log, "step="+name) {
				t.Errorf("step %q is not listed as skipped", name)
			}
		}
	})
}

// kernelSwitches returns the sysctls that namespaces do not have for themselves.
func kernelSwitches(t *testing.T) map[string]string {
	t.Helper()
	values := map[string]string{}
	for _, pattern := range []string{"/proc/sys/kernel/*", "/proc/sys/kernel/*/*", "/proc/sys/vm/*", "/proc/sys/fs/*", "/proc/sys/user/*"} {
		paths, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			changing := strings.Contains(path, "random") || strings.HasSuffix(path, "nr") || strings.Contains(path, "-nr") ||
				strings.Contains(path, "state") || strings.Contains(path, "ns_last_pid") || strings.HasSuffix(path, "/hostname")
			if data, err := os.ReadFile(path); err == nil && !changing {
				values[path] = string(data)
			}
		}
	}
	if len(values) < 50 {
		t.Fatalf("only %d sysctls are readable", len(values))
	}
	return values
}

// A kernel is the guest's own only if both the namespaces and the host say so.
func TestOwnsKernel(t *testing.T) {
	microvm, namespace := &protocol.HelloResponse{Isolation: protocol.IsolationMicroVM}, &protocol.HelloResponse{Isolation: protocol.IsolationNamespace}
	for _, test := range []struct {
		initial bool
		hello   *protocol.HelloResponse
		want    bool
	}{{true, microvm, true}, {true, namespace, false}, {true, nil, false}, {false, microvm, false}, {false, namespace, false}, {false, nil, false}} {
		g := guest{initial: test.initial, hello: test.hello}
		if got := g.ownsKernel(); got != test.want || g.has(needsOwnKernel) != test.want || g.has(needsInitial) != test.initial || !g.has(needsNothing) {
			t.Errorf("%+v: owns %v", test, got)
		}
	}
}

func TestNotInitialInNamespaces(t *testing.T) {
	nstest.Run(t, func(t *testing.T) {
		if os.Getpid() != 1 || inInitialNamespaces() {
			t.Error("a PID 1 in its own namespaces takes itself for the machine's")
		}
	})
	if os.Getpid() != 1 && inInitialNamespaces() {
		t.Error("a process other than 1 takes itself for the machine's first")
	}
}

func TestParseCommandLine(t *testing.T) {
	got := parseCommandLine("console=ttyS0 torno.broker=vsock://2:618 torno.run=vsock://2:619 quiet torno.debug torno.root torno.scratch torno.recover\n")
	want := Words{Broker: "vsock://2:618", Run: "vsock://2:619", Debug: true, Root: diskRoot, Scratch: diskScratch, Recover: true}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := parseCommandLine("xtorno.broker=a torno.run torno.probes torno.debug=no"); got != (Words{}) {
		t.Errorf("got %+v", got)
	}
	if got := parseCommandLine("torno.root=vda torno.scratch=vdb"); got != (Words{Root: "vda", Scratch: "vdb"}) {
		t.Errorf("got %+v", got)
	}
}

// A workload that is root in its namespace reaches no more: what it does to its own network only takes
// away what it had.
func TestAttack07RootWorkload(t *testing.T) {
	nstest.Run(t, func(t *testing.T) {
		b := newBroker(t)
		b.hello.Workload.User = protocol.UserRoot
		code, log := b.boot(`
			id -u; pwd
			head -c 1 /proc/1/environ 2>/dev/null && echo environ is readable
			ls /proc/1/fd 2>/dev/null | grep -q . && echo descriptors are visible
			curl -sS https://api.example.com/before
			PATH=$PATH:/usr/sbin:/sbin nft flush ruleset 2>/dev/null
			curl -sS -m 2 https://api.example.com/after >/dev/null 2>&1 && echo a call without capture
			kill -KILL 1; kill -0 1 && echo process 1 lives`)
		stdout, _, exit := b.result()
		want := "0\n/root\nGET https://api.example.com/before\nprocess 1 lives\n"
		if diff := cmp.Diff(want, strings.ReplaceAll(stdout, ":443/", "/")); diff != "" || code != 0 {
			t.Errorf("exit %d, %+v; stdout (-want +got):\n%s\nlog:\n%s", code, exit, diff, log)
		}
	})
}
