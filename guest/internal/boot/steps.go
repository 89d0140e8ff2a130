package boot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"torno.internal/guest/internal/capture"
	"torno.internal/guest/internal/names"
	"torno.internal/guest/internal/rootfs"
	"torno.internal/guest/internal/trust"
	"torno.internal/protocol"
)

// A need is what a step changes beyond the guest's own namespaces, and so what it must own.
type need uint8

const (
	needsNothing   need = iota // only the guest's own namespaces
	needsInitial               // the machine's first namespaces; all that can be proved before hello
	needsOwnKernel             // the kernel as a whole: clock, sysctls, modules
)

func (n need) String() string {
	return [...]string{"nothing", "the machine's first namespaces", "a kernel of its own"}[n]
}

// A step is one row of the boot table.
type step struct {
	name  string
	needs need
	run   func(*guest, context.Context) error
}

// The order of booting. Nothing of the workload's runs before the last step has succeeded. What comes before
// hello is the same for all that are restored from one snapshot.
var beforeHello = []step{
	{"modules", needsInitial, (*guest).loadModules},
	{"root", needsInitial, (*guest).enterRoot},
	{"process 1", needsNothing, (*guest).hide},
	{"lo", needsNothing, func(*guest, context.Context) error { return capture.Up() }},
}

var fromHello = []step{
	{"hello", needsNothing, (*guest).sayHello},
	{"cards", needsInitial, (*guest).checkCards},
	{"clock", needsOwnKernel, (*guest).setClock},
	{"sysctls", needsOwnKernel, (*guest).setSysctls},
	{"cgroup", needsOwnKernel, (*guest).makeCgroup},
	{"containers", needsOwnKernel, (*guest).mountEngines},
	{"trust", needsNothing, (*guest).installTrust},
	{"plan", needsNothing, (*guest).makePlan},
	{"capture", needsNothing, (*guest).startCapture},
	{"names", needsNothing, (*guest).startNames},
	{"user", needsNothing, (*guest).makeUser},
	{"workspace", needsNothing, (*guest).makeWorkspace},
	{"status", needsOwnKernel, (*guest).writeStatus},
	{"front", needsNothing, (*guest).startFront},
	{"ssh agent", needsNothing, (*guest).startAgent},
	{"signing", needsNothing, (*guest).startSigning},
	{"self-test", needsNothing, (*guest).selfTest},
}

// Inode numbers of the initial namespaces (PROC_USER_INIT_INO and PROC_PID_INIT_INO of proc_ns.h): the
// same on every Linux, and of no namespace made later.
const (
	initialUserNS = 0xEFFFFFFD
	initialPIDNS  = 0xEFFFFFFC
)

// inInitialNamespaces reports whether the guest runs in the machine's first user and PID namespaces,
// where a container never is.
func inInitialNamespaces() bool {
	return inode("/proc/self/ns/user") == initialUserNS && inode("/proc/self/ns/pid") == initialPIDNS && os.Getpid() == 1
}

func inode(path string) uint64 {
	var stat unix.Stat_t
	if unix.Stat(path, &stat) != nil {
		return 0
	}
	return stat.Ino
}

// ownsKernel reports whether the kernel is the guest's alone: proved by the namespaces, and said by the
// host. One of the two is not enough, for a clock that is set wrongly is the host's.
func (g *guest) ownsKernel() bool {
	return g.initial && g.hello != nil && g.hello.Isolation == protocol.IsolationMicroVM
}

func (g *guest) has(n need) bool {
	switch n {
	case needsInitial:
		return g.initial
	case needsOwnKernel:
		return g.ownsKernel()
	}
	return true
}

// hide keeps the guest's memory, descriptors and very existence from the workload's user.
func (g *guest) hide(context.Context) error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("not dumpable: %w", err)
	}
	unix.Umask(0o022)
	if os.Getpid() != 1 {
		g.Log.Debug("boot: skipped", "step", "hidepid", "needs", "a PID namespace of its own")
		return nil
	}
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	err := unix.Mount("", "/proc", "", unix.MS_REMOUNT|flags, "hidepid=2")
	if err != nil {
		err = unix.Mount("proc", "/proc", "proc", flags, "hidepid=2")
	}
	if err != nil { // what is not dumpable cannot be read all the same
		g.Log.Warn("processes of other users stay visible in /proc", "error", err)
	}
	return nil
}

// A sysctl is a row of the table below /proc/sys.
type sysctl struct{ path, value string }

// sysctls close what a workload could do to the kernel, which is the guest's own. Each holds until
// reboot for everybody, so a shared kernel never sees them. The last one stands last.
var sysctls = []sysctl{
	{"kernel/core_pattern", ""},
	{"kernel/modprobe", ""}, // both name programs that the kernel would run as root
	{"kernel/usermodehelper/bset", "0 0"},
	{"kernel/usermodehelper/inheritable", "0 0"},
	{"kernel/kptr_restrict", "2"},
	{"kernel/dmesg_restrict", "1"},
	{"kernel/perf_event_paranoid", "3"},
	{"kernel/yama/ptrace_scope", "2"},
	{"kernel/kexec_load_disabled", "1"},
	{"kernel/unprivileged_bpf_disabled", "1"},
	{"kernel/io_uring_disabled", "2"},
	{"kernel/sysrq", "0"},
	{"fs/suid_dumpable", "0"},
	{"fs/protected_symlinks", "1"},
	{"fs/protected_hardlinks", "1"},
	{"vm/mmap_min_addr", "65536"},
	{"kernel/modules_disabled", "1"},
}

func (g *guest) setSysctls(context.Context) error {
	all := sysctls
	if g.hello.Workload.User != protocol.UserRoot { // who is root may make containers
		all = append([]sysctl{{"user/max_user_namespaces", "0"}}, sysctls...)
	}
	for _, s := range all {
		err := os.WriteFile("/proc/sys/"+s.path, []byte(s.value+"\n"), 0)
		if errors.Is(err, fs.ErrNotExist) {
			g.Log.Debug("boot: skipped, not in this kernel", "sysctl", s.path)
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (g *guest) installTrust(context.Context) error {
	var err error
	g.trust, err = trust.Install([]byte(g.hello.CA), g.Log)
	return err
}

func (g *guest) makePlan(context.Context) error {
	var err error
	g.plan, err = capture.NewPlan(g.hello.Capture)
	return err
}

func (g *guest) startCapture(context.Context) error {
	var err error
	method := capture.Redirect
	if g.ownsKernel() || g.attached && g.plan.User == nil && inode("/proc/self/ns/user") == initialUserNS {
		method = capture.Lookup
	}
	g.caught, err = capture.Listen(g.background, g.plan, method, g.Log)
	return err
}

// hostname is the machine's name inside. It has no dot, so that it makes no search domain.
const hostname = "torno"

func (g *guest) startNames(context.Context) error {
	var err error
	if g.table, err = names.New(g.plan.Names4, g.plan.Names6); err != nil {
		return err
	}
	server, err := names.Listen(g.background, g.table, g.plan.Addr6.IsValid(), g.Log)
	if err != nil {
		return err
	}
	g.serve("names", server.Serve)
	if err := unix.Sethostname([]byte(hostname)); err != nil {
		g.Log.Warn("hostname", "error", err)
	}
	hosts := "127.0.0.1\tlocalhost\n127.0.1.1\t" + hostname + "\n::1\tlocalhost ip6-localhost ip6-loopback\n"
	return errors.Join(
		rootfs.WriteFile("/etc/resolv.conf", []byte("nameserver "+g.plan.Addr4.String()+"\n")),
		rootfs.WriteFile("/etc/hosts", []byte(hosts)),
		rootfs.WriteFile("/etc/hostname", []byte(hostname+"\n")),
	)
}

// answerNames answers names on a machine that is not ours alone: where it has a network card, those of the
// workload's user, which are redirected to us, and otherwise everybody's.
func (g *guest) answerNames(context.Context) error {
	var err error
	if g.table, err = names.New(g.plan.Names4, g.plan.Names6); err != nil {
		return err
	}
	ipv6 := g.plan.Addr6.IsValid()
	var server *names.Server
	if len(g.cards) == 0 {
		if server, err = names.Listen(g.background, g.table, ipv6, g.Log); err == nil {
			err = g.setResolver()
		}
	} else {
		g.plan.User = &capture.User{ID: g.UID}
		server, g.plan.User.Names, err = names.ListenLoopback(g.background, g.table, ipv6, g.Log)
	}
	if err != nil {
		return err
	}
	g.serve("names", server.Serve)
	return nil
}

// listenProxy opens the explicit proxy's port: the plan's if it is free, else any.
func (g *guest) listenProxy(ctx context.Context) (net.Listener, error) {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(g.plan.ProxyPort))))
	if err != nil {
		l, err = config.Listen(ctx, "tcp4", "127.0.0.1:0")
	}
	if err != nil {
		return nil, fmt.Errorf("explicit proxy: %w", err)
	}
	g.proxy = "http://" + l.Addr().String()
	return l, nil
}
