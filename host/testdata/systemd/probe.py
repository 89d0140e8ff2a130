# What a broker could do that was taken over, inside the unit's sandbox. Each line says what, and whether it was let. Outside of
# any sandbox root is let do all of it.
import ctypes, mmap, os, socket, subprocess, sys, time

libc = ctypes.CDLL(None, use_errno=True)
out = open(sys.argv[1], "w")

def tries(what, f):
    try:
        f()
        said = "allowed"
    except OSError as e:
        said = "refused"
    print(what + ": " + said, file=out, flush=True)

def call(number, *args):
    if libc.syscall(number, *args) < 0:
        raise OSError(ctypes.get_errno(), "system call")

def write(path):
    return lambda: os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))

def connect(host, port):
    def f():
        s = socket.socket(); s.settimeout(3); s.connect((host, port))
    return f

def other_process():
    if not os.path.exists("/proc/1/status"):
        raise FileNotFoundError

def wx():
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)

def capable():
    if not open("/proc/self/status").read().split("CapEff:\t")[1].split("\n")[0].strip("0"):
        raise PermissionError

tries("capabilities", capable)
tries("write its state", write("/var/lib/torno/probe"))
tries("write its sockets' place", write("/run/torno/probe2"))
tries("write /etc", write("/etc/probe"))
tries("write /usr", write("/usr/probe"))
tries("write /var/log", write("/var/log/probe"))
tries("write another's /run", write("/run/probe"))
tries("write /root/src", write("/root/src/probe"))
tries("see /home/person", lambda: os.listdir("/home/person"))
tries("see /root/src", lambda: os.listdir("/root/src"))
tries("read /etc/shadow", lambda: open("/etc/shadow").read())
tries("read /etc/torno/broker.toml", lambda: open("/etc/torno/broker.toml").read())
tries("open the disk", lambda: os.open("/dev/vda", os.O_RDONLY))
tries("see other processes", other_process)
tries("write a sysctl", write("/proc/sys/kernel/domainname"))
tries("a new namespace", lambda: call(272, 0x04000000))
tries("a mount", lambda: call(165, b"none", b"/mnt", b"tmpfs", 0, None))
tries("a raw socket", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
tries("AF_VSOCK", lambda: socket.socket(40, socket.SOCK_STREAM))
tries("memory that is written and executed", wx)
tries("set the clock", lambda: call(227, 0, (ctypes.c_long * 2)(int(time.time()), 0)))
tries("reboot, or forbid ^Alt-Delete to", lambda: call(169, 0xFEE1DEAD, 672274793, 0, None))
tries("a cloud's metadata", connect("169.254.169.254", 80))
tries("the loopback", connect("127.0.0.1", 8443))
tries("a setuid program", lambda: subprocess.run(["/usr/bin/su", "-c", "true"], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode and (_ for _ in ()).throw(PermissionError()))
