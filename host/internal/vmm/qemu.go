package vmm

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"torno.internal/host/internal/awake"
)

// An Accel is how QEMU runs the guest's code.
type Accel string

// The accelerations.
const (
	KVM Accel = "kvm" // by the processor itself
	TCG Accel = "tcg" // by translation: an order of magnitude slower, works everywhere
)

// maxCPUs bounds a machine's processors.
const maxCPUs = 64

// Sizes of a machine's memory in bytes.
const (
	minMemory  = 64 << 20
	maxMemory  = 1 << 40
	pageMemory = 1 << 20 // it comes in multiples of this
)

// FindQEMU finds the emulator of this machine's architecture.
func FindQEMU() (string, error) {
	name := "qemu-system-x86_64"
	if runtime.GOARCH != "amd64" {
		return "", &Error{fmt.Errorf("VMs are not supported on %s", runtime.GOARCH), "--isolation namespace"}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", &Error{fmt.Errorf("%s is not installed", name), "apt-get install qemu-system-x86, or --isolation namespace"}
	}
	return path, nil
}

// Check refuses machines that QEMU would refuse in words of its own, as *Error. Start does it too.
func (s *Spec) Check() error {
	beginTSC() // a little later it is wanted
	switch {
	case s.Memory < minMemory || s.Memory > maxMemory || s.Memory%pageMemory != 0:
		return &Error{fmt.Errorf("memory of %d bytes", s.Memory), "--memory 2G: from 64M to 1T, whole MiB"}
	case s.CPUs < 0 || s.CPUs > maxCPUs:
		return &Error{fmt.Errorf("%d processors", s.CPUs), fmt.Sprintf("--cpus: from 1 to %d", maxCPUs)}
	case s.Machine != "" && s.Machine != MicroVM && s.Machine != Q35:
		return &Error{fmt.Errorf("machine %q is unknown", s.Machine), "--machine microvm or q35"}
	}
	return nil
}

// cpuModel is the processor that TCG plays: simple, which boots sooner than "max", with what Go's
// cryptography uses, and with AVX2, without which programs crash that are built for the processors of the
// last ten years, claude among them. XSAVEOPT is not decoration: without it AVX hangs the kernel.
const cpuModel = "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt,+aes,+pclmulqdq,+rdrand,+bmi1,+bmi2,+movbe,+abm," +
	"+smep,+smap,+umip,+xsave,+xsaveopt,+avx,+avx2,+f16c,+fma"

// slowAVX keeps the guest, a Go program, from AVX2, which TCG emulates at a tenth of the speed of the
// alternatives. The kernel passes words that it does not know to init, as variables.
const slowAVX = "GODEBUG=cpu.avx2=off"

// files are the descriptors that QEMU inherits, from 3 on.
type files []*os.File

// add adds a descriptor and returns its number in QEMU.
func (f *files) add(file *os.File) int {
	*f = append(*f, file)
	return 2 + len(*f)
}

// arguments returns QEMU's arguments, without its name, and what it inherits.
func (s *Spec) arguments(vsock, initrd *os.File, tscKHz uint64) ([]string, files) {
	var inherited files
	size := strconv.FormatUint(s.Memory>>20, 10) + "M"
	args := []string{"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-monitor", "none", "-serial", "stdio",
		"-object", "memory-backend-memfd,id=mem,size=" + size + ",share=on", "-m", size, "-smp", strconv.Itoa(max(s.CPUs, 1))}
	args = append(args, s.machine()...)
	bus := "device"
	if s.Machine == Q35 {
		bus = "pci"
	}
	args = append(args, "-chardev", fmt.Sprintf("socket,id=vsock,fd=%d", inherited.add(vsock)), "-device", "vhost-user-vsock-"+bus+",chardev=vsock")
	for i, d := range s.Disks {
		mode := "off"
		cache := "cache.direct=off,cache.no-flush=on" // a scratch disk need not survive the host
		if d.ReadOnly {
			mode = "on"
		}
		fd := inherited.add(d.File)
		args = append(args, "-add-fd", fmt.Sprintf("fd=%d,set=%d", fd, i+1),
			"-blockdev", fmt.Sprintf("driver=file,node-name=file%d,filename=/dev/fdset/%d,read-only=%s,locking=off,discard=unmap,%s", i, i+1, mode, cache),
			"-blockdev", fmt.Sprintf("driver=raw,node-name=disk%d,file=file%d,read-only=%s,discard=unmap,%s", i, i, mode, cache),
			"-device", fmt.Sprintf("virtio-blk-%s,drive=disk%d,serial=%s", bus, i, d.Name))
	}
	args = append(args,
		"-kernel", fmt.Sprintf("/proc/self/fd/%d", inherited.add(s.Kernel)),
		"-initrd", fmt.Sprintf("/proc/self/fd/%d", inherited.add(initrd)),
		"-append", strings.Join(s.commandLine(tscKHz), " "),
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny")
	return args, inherited
}

// machine returns the arguments that say which machine it is.
func (s *Spec) machine() []string {
	accel := []string{"-accel", "kvm", "-cpu", "host"}
	if s.Accel != KVM {
		accel = []string{"-accel", "tcg,thread=multi", "-cpu", cpuModel}
	}
	machine := "microvm,acpi=on,x-option-roms=off,rtc=on,pit=off,pic=off,isa-serial=on,memory-backend=mem"
	if s.Accel == KVM {
		machine = "microvm,acpi=on,x-option-roms=off,rtc=on,isa-serial=on,memory-backend=mem"
	}
	if s.Machine == Q35 {
		machine = "q35,usb=off,vmport=off,sata=off,smbus=off,memory-backend=mem"
	}
	return append(accel, "-machine", machine, "-global", "virtio-mmio.force-legacy=false")
}

// commandLine returns the words of the kernel's command line. Without a clock that Linux can calibrate
// with, the microvm under TCG must be told how fast its time stamp counter is, which is the host's own.
func (s *Spec) commandLine(tscKHz uint64) []string {
	words := []string{"console=ttyS0", "quiet", "panic=-1", "reboot=t", "cryptomgr.notests", "random.trust_cpu=on",
		"initcall_blacklist=init_kprobe_trace,load_system_certificate_list,crypto_kdf108_init,init_encrypted"}
	if s.Accel == KVM { // under emulation each look would cost more than it saves
		words = append(words, awake.Variable)
	} else {
		words = append(words, "tsc=reliable", "noreplace-smp", slowAVX)
		if tscKHz > 0 {
			words = append(words, fmt.Sprintf("tsc_early_khz=%d", tscKHz))
		}
	}
	return append(words, s.Words...)
}

// command returns how to start QEMU: by way of Exec, in namespaces of its own.
func (s *Spec) command(qemu string, vsock, initrd *os.File) (*exec.Cmd, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	var khz uint64
	if s.Accel != KVM {
		if khz = tscKHz(); khz == 0 && s.Machine != Q35 {
			return nil, &Error{errors.New("this processor's time stamp counter has no steady rate"), "--machine q35"}
		}
	}
	args, inherited := s.arguments(vsock, initrd, khz)
	cmd := exec.Command("/proc/self/exe", append([]string{ExecCommand, qemu}, args...)...)
	cmd.Args[0] = "torno" // as ps shows it, until it is QEMU
	cmd.Env = []string{}
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = s.Console, s.Console
	cmd.ExtraFiles = inherited
	cmd.SysProcAttr = isolation()
	return cmd, nil
}

// Whom QEMU runs as where we are root: a user and group of its own, so that neither another VM nor a service
// that runs as nobody may signal it or look into its memory. Ids from there on belong to no distribution,
// container or person (systemd's UIDS-GIDS); the process id of ours tells them apart.
const (
	firstOwnID = 0x70000000
	nobody     = 65534 // where there are too few ids, as in most containers
)

// ownID returns the user and group id for QEMU.
func ownID() uint32 {
	for _, file := range []string{"/proc/self/uid_map", "/proc/self/gid_map"} {
		b, err := os.ReadFile(file)
		if err != nil || strings.Join(strings.Fields(string(b)), " ") != "0 0 4294967295" {
			return nobody
		}
	}
	return firstOwnID + uint32(os.Getpid())
}

// isolation returns what QEMU must not share with us. Who is root becomes somebody else; everybody else is
// alone in a user namespace, with no other id and no capability in any other.
func isolation() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWPID | unix.CLONE_NEWNS,
		Setsid:     true, // no controlling terminal, no signals from one
		Pdeathsig:  unix.SIGKILL,
	}
	if os.Geteuid() == 0 {
		id := ownID()
		attr.Credential = &syscall.Credential{Uid: id, Gid: id, Groups: kvmGroup()}
		return attr
	}
	attr.Cloneflags |= unix.CLONE_NEWUSER
	attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: os.Geteuid(), HostID: os.Geteuid(), Size: 1}}
	attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getegid(), HostID: os.Getegid(), Size: 1}}
	return attr
}

// kvmGroup returns the group that may use /dev/kvm, or none.
func kvmGroup() []uint32 {
	var stat unix.Stat_t
	if unix.Stat(kvmDevice, &stat) != nil || stat.Mode&0o060 != 0o060 || stat.Gid == 0 {
		return []uint32{}
	}
	return []uint32{stat.Gid}
}
