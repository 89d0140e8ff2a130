package capture

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"torno.internal/guest/internal/nstest"
	"torno.internal/protocol"
)

// outside is what stands at the other end of the card: it answers TCP on 9000 with "outside" and its peer, repeats
// what it gets on UDP 9001 and 53, and prints what reaches it on TCP 9002.
const outside = `import socket, threading, sys
def tcp():
    l = socket.create_server(("0.0.0.0", 9000))
    while True:
        c, a = l.accept(); c.sendall(b"outside"); c.close()
def old():
    l = socket.create_server(("0.0.0.0", 9002))
    c, a = l.accept()
    while True:
        b = c.recv(100)
        if not b: break
        print("heard", b.decode(), flush=True)
def udp(port):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("0.0.0.0", port))
    while True:
        b, a = s.recvfrom(100); s.sendto(b, a)
for f in (tcp, old): threading.Thread(target=f, daemon=True).start()
for p in (9001, 53): threading.Thread(target=udp, args=(p,), daemon=True).start()
print("ready", flush=True)
for line in sys.stdin:
    host, port = line.split()
    try:
        s = socket.create_connection((host, int(port)), 3); print("connected", flush=True)
    except OSError as e:
        print("refused", flush=True)`

// inside is what a user does: everything that could leave.
const inside = `import socket, sys, errno
def tcp(host, port):
    try:
        s = socket.create_connection((host, port), 5); return s.recv(100).decode()
    except OSError as e: return errno.errorcode.get(e.errno, str(e))
def udp(host, port):
    s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(2)
    try:
        s.connect((host, port)); s.send(b"q"); return s.recv(100).decode()
    except OSError as e: return errno.errorcode.get(e.errno, str(e))
def ping(host):
    try:
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP); s.settimeout(2)
        s.sendto(b"\x08\x00\xf7\xff\x00\x00\x00\x00", (host, 1)); s.recv(100); return "answered"
    except OSError as e: return "closed"
print("tcp", tcp("10.9.0.2", 9000))
print("tcp elsewhere", tcp("93.184.216.34", 443))
print("tcp 6", tcp("2606:2800:220:1::1", 443))
print("udp", udp("10.9.0.2", 9001))
print("udp 6", udp("2606:2800:220:1::1", 443))
print("names", udp("10.9.0.2", 53))
print("names of a local resolver", udp("127.0.0.53", 53))
print("own server", tcp("127.0.0.1", 9100))
print("ping", ping("10.9.0.2"))`

// On a machine with a network card one user is caught, whatever it dials, and nothing of its own leaves by the
// card; others use the card as ever. Attack 25, as far as it can hold there.
func TestCaptureOfOneUser(t *testing.T) {
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("needs ip; try: apt-get install iproute2")
	}
	nstest.Run(t, func(t *testing.T) {
		peer, say, hear := startOutside(t)
		old := startUser(t, `import socket, sys
s = socket.create_connection(("10.9.0.2", 9002)); s.sendall(b"before"); print("connected", flush=True)
sys.stdin.readline()
s.sendall(b"after")
`)
		old.expect(t, "connected")
		hear.expect(t, "heard before")
		const user, names = 1000, 1053
		plan, err := NewPlan(protocol.Capture{})
		if err != nil {
			t.Fatal(err)
		}
		plan.User = &User{ID: user, Names: names}
		l, err := Listen(t.Context(), plan, Redirect, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				fmt.Fprintf(c, "caught for %v", c.LocalAddr())
				c.Close()
			}
		}()
		answerNames(t, names)
		own, err := net.Listen("tcp", "127.0.0.1:9100")
		if err != nil {
			t.Fatal(err)
		}
		defer own.Close()
		go func() {
			for {
				c, err := own.Accept()
				if err != nil {
					return
				}
				io.WriteString(c, "own")
				c.Close()
			}
		}()
		want := `tcp caught for 10.9.0.2:9000
tcp elsewhere caught for 93.184.216.34:443
tcp 6 caught for [2606:2800:220:1::1]:443
udp ECONNREFUSED
udp 6 ECONNREFUSED
names ours
names of a local resolver ours
own server own
ping closed
`
		if got := runAs(t, user, inside); got != want {
			t.Errorf("the user:\n%s\nwant\n%s", got, want)
		}
		// The control: another user reaches the outside, and none of it comes to us.
		got := runAs(t, 1001, inside)
		for _, w := range []string{"tcp outside\n", "udp q\n", "names q\n", "own server own\n"} {
			if !strings.Contains(got, w) {
				t.Errorf("another user: no %q in\n%s", w, got)
			}
		}
		if strings.Contains(got, "caught") || strings.Contains(got, "ours") {
			t.Errorf("another user is caught:\n%s", got)
		}
		// From outside nobody reaches the listener.
		fmt.Fprintf(say, "10.9.0.1 %d\n", l.port())
		hear.expect(t, "refused")
		// A connection that is older than the capture is cut off.
		fmt.Fprintln(old.in)
		time.Sleep(500 * time.Millisecond)
		fmt.Fprintf(say, "10.9.0.1 9\n")
		if line := hear.next(t); line != "refused" {
			t.Errorf("the outside says %q: an old connection goes on", line)
		}
		_ = peer.Process.Kill()
	})
}

// answerNames answers every datagram on the port with "ours".
func answerNames(t *testing.T, port int) {
	t.Helper()
	for _, address := range []string{"127.0.0.1", "::1"} {
		c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(address), Port: port})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		go func() {
			buf := make([]byte, 100)
			for {
				_, from, err := c.ReadFromUDP(buf)
				if err != nil {
					return
				}
				c.WriteToUDP([]byte("ours"), from)
			}
		}()
	}
}

// A script is a running program that is talked to by lines.
type script struct {
	in  io.Writer
	out *bufio.Scanner
}

func (s *script) next(t *testing.T) string {
	t.Helper()
	if !s.out.Scan() {
		t.Fatalf("no more lines: %v", s.out.Err())
	}
	return s.out.Text()
}

func (s *script) expect(t *testing.T, want string) {
	t.Helper()
	if got := s.next(t); got != want {
		t.Fatalf("line %q, want %q", got, want)
	}
}

func start(t *testing.T, cmd *exec.Cmd) *script {
	t.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return &script{in, bufio.NewScanner(out)}
}

// startOutside makes a card, c0 with 10.9.0.1, whose other end is in a network of its own.
func startOutside(t *testing.T) (cmd *exec.Cmd, say io.Writer, hear *script) {
	t.Helper()
	cmd = exec.Command("python3", "-c", outside)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	s := start(t, cmd)
	s.expect(t, "ready")
	pid := fmt.Sprint(cmd.Process.Pid)
	for _, line := range []string{
		"ip link set lo up", "ip link add c0 type veth peer name c1", "ip link set c1 netns " + pid,
		"ip addr add 10.9.0.1/24 dev c0", "ip link set c0 up",
		"nsenter -t " + pid + " -n ip addr add 10.9.0.2/24 dev c1", "nsenter -t " + pid + " -n ip link set c1 up",
		"ip route add default via 10.9.0.2",
	} {
		if out, err := exec.Command("sh", "-c", line).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", line, err, out)
		}
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if c, err := net.DialTimeout("tcp", "10.9.0.2:9000", time.Second); err == nil {
			c.Close()
			return cmd, s.in, s
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func as(uid uint32, program string) *exec.Cmd {
	cmd := exec.Command("python3", "-c", program)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid, Groups: []uint32{}}}
	return cmd
}

// startUser starts a program as the user that is caught.
func startUser(t *testing.T, program string) *script { return start(t, as(1000, program)) }

func runAs(t *testing.T, uid uint32, program string) string {
	t.Helper()
	cmd := as(uid, program)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}
