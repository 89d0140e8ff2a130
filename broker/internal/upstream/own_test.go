package upstream

import (
	"net"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"torno.internal/protocol"
)

// ownEnv marks the process that runs a test in a network of its own.
const ownEnv = "TORNO_TEST_OWN_NETWORK"

// ownNetwork runs the test once more in a network that has the address addr alone, and reports whether this is that run.
func ownNetwork(t *testing.T, addr [4]byte) bool {
	t.Helper()
	if os.Getenv(ownEnv) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), ownEnv+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET}
		if os.Geteuid() != 0 {
			cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
			cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("in a network of its own: %v\n%s", err, out)
		}
		return false
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := lo.SetInet4Addr(addr[:]); err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFADDR, lo); err != nil {
		t.Fatal(err)
	}
	lo.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
		t.Fatal(err)
	}
	return true
}

// TestAttack23OwnAddress asks for a public address that is this host's own, by itself, by a name and through a tunnel. A
// server that the world may not reach waits there.
func TestAttack23OwnAddress(t *testing.T) {
	if !ownNetwork(t, [4]byte{8, 8, 4, 4}) {
		return
	}
	ln, err := net.Listen("tcp", "8.8.4.4:443")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c := newClient(t, Config{Resolver: &fakeResolver{answers: [][]string{{"8.8.4.4"}}}})
	for _, host := range []string{"8.8.4.4", "evil.example"} {
		key := PoolKey{Session: "s", Scheme: "https", Authority: protocol.Authority{Host: host, Port: 443}}
		_, err := c.Open(t.Context(), key)
		wantReason(t, err, protocol.ReasonForbiddenAddress)
		_, err = c.Tunnel(t.Context(), key)
		wantReason(t, err, protocol.ReasonForbiddenAddress)
	}
	c.AllowPrivate("s", []netip.Prefix{netip.MustParsePrefix("8.8.4.4/32")}) // the control: it is there to be reached
	conn, err := c.Tunnel(t.Context(), PoolKey{Session: "s", Authority: protocol.Authority{Host: "evil.example", Port: 443}})
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if isOwn(netip.MustParseAddr("2606:4700::1111")) {
		t.Error("an address without a route is our own")
	}
}
