# What a workload tries in its VM. Each line of output is a name, and what came of it.
import ctypes, errno, mmap, os, signal, socket, struct, subprocess, sys, time

libc = ctypes.CDLL(None, use_errno=True)
AF_VSOCK, HOST, BROKER = 40, 2, 618
BPF_MAP_CREATE = 0


def call(nr, *args):
    if libc.syscall(nr, *[ctypes.c_long(a) for a in args]) >= 0:
        return "allowed"
    return errno.errorcode[ctypes.get_errno()]


def attempt(f):
    try:
        return f() or "allowed"
    except OSError as e:
        return errno.errorcode.get(e.errno, type(e).__name__)


def child(f):
    """Runs f in a process of its own: how that ended."""
    pid = os.fork()
    if pid == 0:
        f()
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else "exit %d" % os.WEXITSTATUS(status)


def int80():
    # mov eax, 359 (socket); mov ebx, 40; mov ecx, 1; xor edx, edx; int 0x80; ret
    code = b"\xb8\x67\x01\x00\x00\xbb\x28\x00\x00\x00\xb9\x01\x00\x00\x00\x31\xd2\xcd\x80\xc3"
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()


def socketcall():
    """A program for i386: socketcall(SYS_SOCKET, {AF_VSOCK, SOCK_STREAM, 0}), then exit."""
    code = (b"\xb8\x66\x00\x00\x00\xbb\x01\x00\x00\x00\xb9\x78\x80\x04\x08\xcd\x80"
            b"\xb8\x01\x00\x00\x00\x31\xdb\xcd\x80")
    code = code.ljust(36, b"\x90") + struct.pack("<III", AF_VSOCK, 1, 0)
    header = b"\x7fELF\x01\x01\x01".ljust(16, b"\0") + struct.pack(
        "<HHIIIIIHHHHHH", 2, 3, 1, 0x8048054, 52, 0, 0, 52, 32, 1, 40, 0, 0)
    size = 52 + 32 + len(code)
    program = struct.pack("<IIIIIIII", 1, 0, 0x8048000, 0x8048000, size, size, 5, 4096)
    path = os.path.expanduser("~/socketcall")
    with open(path, "wb") as f:
        f.write(header + program + code)
    os.chmod(path, 0o755)
    return child(lambda: os.execv(path, [path]))


def vsock():
    socket.socket(AF_VSOCK, socket.SOCK_STREAM)


def earlier():
    """Processes that are neither the kernel's, nor the guest, nor under the filter."""
    free, seen = [], 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            status = dict(l.split(":\t", 1) for l in open("/proc/%s/status" % pid).read().splitlines() if ":\t" in l)
        except OSError:
            continue
        seen += 1
        if pid not in ("1", "2") and status["PPid"] != "2" and status["Seccomp"] != "2":
            free.append(status["Name"])
    return "none" if seen and not free else "found %s" % free


def through_kernel():
    """A program that the kernel itself starts is under no filter: it makes the socket, and hands it over."""
    home = os.path.expanduser("~")
    helper = os.path.join(home, "helper")
    with open(helper, "w") as f:
        f.write("""#!/usr/bin/python3
import array, socket
out = socket.socket(socket.AF_UNIX)
out.connect(%r)
try:
    s = socket.socket(%d, socket.SOCK_STREAM)
except OSError as e:
    out.send(b"no socket")
    raise SystemExit
def attempt(f):
    try:
        f()
        return b"allowed"
    except OSError as e:
        return str(e.errno).encode()
low = attempt(lambda: s.bind((0xFFFFFFFF, 700)))
def connect():
    c = socket.socket(%d, socket.SOCK_STREAM)
    c.settimeout(20)
    c.connect((%d, %d))
high = attempt(connect)
out.sendmsg([low + b" " + high], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [s.fileno()]))])
""" % (home + "/sock", AF_VSOCK, AF_VSOCK, HOST, BROKER))
    os.chmod(helper, 0o755)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(home + "/sock")
    listener.listen()
    listener.settimeout(30)
    with open("/proc/sys/kernel/core_pattern", "w") as f:
        f.write("|" + helper)
    child(lambda: os.kill(os.getpid(), signal.SIGSEGV))
    c = listener.accept()[0]
    text, rights, _, _ = c.recvmsg(100, socket.CMSG_SPACE(4))
    if not rights:
        return text.decode()
    low, high = [errno.errorcode.get(int(n), n) if n.isdigit() else n for n in text.decode().split()]
    print("1 helper binds a low port\t" + low)
    print("1 helper connects from a high port\t" + high)
    s = socket.socket(fileno=struct.unpack("i", rights[0][2])[0])
    print("1 root binds what it was handed\t" + attempt(lambda: s.bind((0xFFFFFFFF, 700))))
    s.settimeout(30)
    print("1 and reaches the broker\t" + attempt(lambda: s.connect((HOST, BROKER))))
    s.send(b"torno" + struct.pack(">HB", 1, 3) + os.urandom(32))
    return "status %d" % s.recv(8)[7]



for name, f in (
    ("1 AF_VSOCK", lambda: attempt(vsock)),
    ("1 AF_VSOCK pair", lambda: attempt(lambda: socket.socketpair(AF_VSOCK) and None)),
    ("1 AF_VSOCK as root of a user namespace", lambda: subprocess.run(
        ["unshare", "-Ur", sys.executable, "-c", "import socket; socket.socket(40, 1)"], stderr=subprocess.DEVNULL).returncode and "refused" or "allowed"),
    ("1 through the kernel", lambda: attempt(through_kernel)),
    ("2 io_uring", lambda: call(425, 1, 0)),
    ("2 x32 socket", lambda: call(0x40000000 | 41, AF_VSOCK, 1, 0)),
    ("2 int 0x80", lambda: child(int80)),
    ("2 i386 socketcall", socketcall),
    ("2 process before the guest", earlier),
    ("6 /proc/1/mem", lambda: attempt(lambda: open("/proc/1/mem", "rb").close())),
    ("6 /proc/1/environ", lambda: attempt(lambda: open("/proc/1/environ", "rb").read() and None)),
    ("6 /proc/1/maps", lambda: attempt(lambda: open("/proc/1/maps").read() and None)),
    ("6 /proc/1/fd", lambda: attempt(lambda: os.readlink("/proc/1/fd/0") and None)),
    ("6 /proc/1/root", lambda: attempt(lambda: os.listdir("/proc/1/root/") and None)),
    ("6 ptrace", lambda: call(101, 16, 1, 0, 0)),
    ("6 process_vm_readv", lambda: call(310, 1, 0, 0, 0, 0, 0)),
    ("6 pidfd_getfd", lambda: call(438, libc.syscall(434, 1, 0), 0, 0)),
    ("6 kernel memory", lambda: attempt(lambda: (os.path.exists("/dev/m") or os.mknod("/dev/m", 0o600 | 0o020000, os.makedev(1, 1))) or open("/dev/m", "rb").read(1) and None)),
    ("6 /proc/kcore", lambda: attempt(lambda: open("/proc/kcore", "rb").read(1) and None)),
    ("6 kernel log", lambda: call(103, 10, 0, 0)),
    ("6 module", lambda: call(313, 0, 0, 0)),
    ("6 kexec", lambda: call(246, 0, 0, 0, 0)),
    ("6 bpf map", lambda: call(321, BPF_MAP_CREATE, 0, 0)),
    ("6 perf", lambda: call(298, 0, 0, -1, -1, 0)),
    ("6 userfaultfd", lambda: call(323, 0)),
    ("6 keyring", lambda: call(250, 0, 0, 0)),
    ("7 mount", lambda: subprocess.run(["mount", "-t", "tmpfs", "none", "/mnt"], stderr=subprocess.DEVNULL).returncode and "refused" or "allowed"),
    ("7 user namespace", lambda: subprocess.run(["unshare", "-Ur", "true"], stderr=subprocess.DEVNULL).returncode and "refused" or "allowed"),
    ("7 write /usr", lambda: attempt(lambda: open("/usr/x", "w").close())),
    ("7 chown", lambda: attempt(lambda: os.chown(os.path.expanduser("~"), 0, 0))),
    ("7 clock", lambda: attempt(lambda: time.clock_settime(time.CLOCK_REALTIME, 0))),
):
    print(name + "\t" + f(), flush=True)
