package run

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"torno.internal/protocol"
)

// openPTY returns both ends of a new terminal.
func openPTY(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no terminals here (try: mount -t devpts devpts /dev/pts): %v", err)
	}
	t.Cleanup(func() { master.Close() })
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

func isRaw(t *testing.T, f *os.File) bool {
	t.Helper()
	s, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return s.Lflag&(unix.ICANON|unix.ISIG|unix.ECHO) == 0
}

func TestTerminal(t *testing.T) {
	master, slave := openPTY(t)
	if err := unix.IoctlSetWinsize(int(slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 50, Col: 132}); err != nil {
		t.Fatal(err)
	}
	terminal, ok := OpenTerminal(slave)
	if !ok {
		t.Fatal("a terminal is none")
	}
	d := sit(t, func(c *Config) { c.Terminal, c.Stdin, c.Stdout = terminal, slave, slave })
	if isRaw(t, slave) {
		t.Error("raw before the workload starts")
	}
	events := d.get(protocol.PathRunEvents)
	defer events.Close()
	if e, err := events.event(); err != nil || e.Type != protocol.RunWinsize || e.Rows != 50 || e.Cols != 132 {
		t.Errorf("first event %+v, %v; want the size 50 × 132", e, err)
	}
	stdin := d.get(protocol.PathStdin)
	defer stdin.Close()
	var typed [1]byte
	for _, key := range "\x03\x04\x1a" { // ^C, ^D and ^Z are bytes
		if _, err := master.WriteString(string(key)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(stdin.r, typed[:]); err != nil || rune(typed[0]) != key {
			t.Errorf("typed %q, the workload gets %q, %v", key, typed, err)
		}
	}
	if !isRaw(t, slave) {
		t.Error("not raw while the workload runs")
	}
	if err := unix.IoctlSetWinsize(int(slave.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 80}); err != nil {
		t.Fatal(err)
	}
	d.signals <- unix.SIGWINCH
	if e, err := events.event(); err != nil || e.Rows != 24 || e.Cols != 80 {
		t.Errorf("event %+v, %v; want the new size", e, err)
	}
	if _, err := master.WriteString("\r~."); err != nil {
		t.Fatal(err)
	}
	if exit, err := d.wait(); !errors.Is(err, ErrForced) || exit.Code != 137 {
		t.Errorf("after ~.: %+v, %v; want 137", exit, err)
	}
	if isRaw(t, slave) {
		t.Error("still raw after the run")
	}
}

func TestNoTerminal(t *testing.T) {
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, ok := OpenTerminal(f); ok {
		t.Error("/dev/null is a terminal")
	}
}

// terminalChild serves a run on its standard input, a terminal, and ends as way says.
func terminalChild(way, dir string) int {
	terminal, ok := OpenTerminal(os.Stdin)
	if !ok {
		return 9
	}
	ln, err := net.Listen("unix", filepath.Join(dir, "r"))
	if err != nil {
		return 9
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, Signals...)
	c := Config{Listener: ln, Terminal: terminal, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Signals: signals,
		Log: slog.New(slog.DiscardHandler)}
	if way == "panic" {
		c.Log = slog.New(panicHandler{slog.DiscardHandler})
	}
	fmt.Fprintln(os.Stderr, "ready")
	exit, err := Serve(context.Background(), c)
	if err != nil && !errors.Is(err, ErrForced) {
		return 9
	}
	return exit.Code
}

// panicHandler panics on the first record, on the goroutine that logs it.
type panicHandler struct{ slog.Handler }

func (panicHandler) Enabled(context.Context, slog.Level) bool { return true }

func (panicHandler) Handle(context.Context, slog.Record) error { panic("on purpose") }

// However a run ends, the terminal is as it was.
func TestTerminalRestored(t *testing.T) {
	for _, way := range []string{"exit", "panic", "TERM", "INT", "HUP"} {
		t.Run(way, func(t *testing.T) {
			master, slave := openPTY(t)
			go io.Copy(io.Discard, master)
			dir, err := os.MkdirTemp("", "tr")
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(dir)
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(self, "terminal", way, dir)
			cmd.Stdin, cmd.Stdout = slave, slave
			stderr, err := cmd.StderrPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			said := bufio.NewReader(stderr)
			if line, err := said.ReadString('\n'); err != nil || line != "ready\n" {
				t.Fatalf("child: %q, %v", line, err)
			}
			g := &fakeGuest{t: t, addr: filepath.Join(dir, "r")}
			q := g.get(protocol.PathStdin)
			defer q.Close()
			for deadline := time.Now().Add(time.Minute); !isRaw(t, slave); time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal("never raw")
				}
			}
			switch way {
			case "exit":
				g.exit(protocol.Exit{Code: 5})
			case "panic":
				if bad, err := g.dial(protocol.Preface{Version: protocol.Version, Kind: protocol.KindHello}); err == nil {
					bad.Close()
				}
			default:
				go func() {
					for cmd.Process.Signal(unix.SignalNum("SIG"+way)) == nil { // two that come too soon after each other are one
						time.Sleep(100 * time.Millisecond)
					}
				}()
			}
			rest, _ := io.ReadAll(said)
			err = cmd.Wait()
			if isRaw(t, slave) {
				t.Errorf("left raw (%v)", err)
			}
			if (way == "panic") != strings.Contains(string(rest), "on purpose") {
				t.Errorf("standard error: %s", rest)
			}
		})
	}
}
