// Package vmm runs a guest in a microVM: QEMU as a child that can do nothing but compute, and the device
// that carries its vsock connections, in one supervisor. If either ends, both do.
//
//	torno run ── vhostvsock.Device ══ guest memory (memfd) ══ QEMU: own user, namespaces,
//	     └── torno vmm-exec, which becomes ──────────────────────┘ Landlock, seccomp, no network
//
// QEMU gets everything by descriptor: kernel, initial file system, disks and the socket of the device. It
// can open nothing of the host's but its own program, libraries and firmware, and /dev/kvm.
package vmm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"torno.internal/host/internal/vhostvsock"
)

// GuestCID is the CID of every guest: each has a device of its own, so none needs another.
const GuestCID = 3

// A Machine is a kind of machine that QEMU makes.
type Machine string

// The machines. The zero value means MicroVM.
const (
	MicroVM Machine = "microvm" // virtio over MMIO, no PCI: boots soonest
	Q35     Machine = "q35"     // a PC with PCI, for kernels that know no virtio-mmio
)

// A Spec says what to run.
type Spec struct {
	Machine Machine
	Accel   Accel
	Memory  uint64                                                        // bytes
	CPUs    int                                                           // 0: one
	Kernel  *os.File                                                      // vmlinux or bzImage
	Initrd  []byte                                                        // cpio archive
	Words   []string                                                      // of the kernel command line, beside what the machine needs
	Disks   []Disk                                                        // become /dev/vda, vdb, … or are told apart by their names
	Console io.Writer                                                     // what the serial line says; nil: discarded
	Dial    func(ctx context.Context, port uint32) (*net.UnixConn, error) // who serves the guest's ports
	Log     *slog.Logger
}

// A Disk is a raw image.
type Disk struct {
	Name     string // its serial number in the guest, at most 20 bytes
	File     *os.File
	ReadOnly bool
}

// A VM is one that was started. Its methods are safe for concurrent use.
type VM struct {
	Device *vhostvsock.Device

	process *os.Process
	cancel  context.CancelFunc
	ended   chan struct{} // nothing of it runs any more
	err     error         // why it ended, once it has

	mu sync.Mutex // held while paused
}

// An Error is a failure that a person can do something about.
type Error struct {
	Err  error
	Hint string
}

func (e *Error) Error() string { return e.Err.Error() }

func (e *Error) Unwrap() error { return e.Err }

// Start starts a VM. It ends when ctx does, when the calling process does, and by Kill. Files of the Spec
// stay the caller's. Errors that a person can mend are *Error.
func Start(ctx context.Context, s Spec) (*VM, error) {
	qemu, err := FindQEMU()
	if err != nil {
		return nil, err
	}
	ours, theirs, err := vhostvsock.Socketpair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	initrd, err := memfd("torno-initrd", s.Initrd)
	if err != nil {
		ours.Close()
		return nil, err
	}
	defer initrd.Close()
	cmd, err := s.command(qemu, theirs, initrd)
	if err != nil {
		ours.Close()
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	vm := &VM{
		Device: vhostvsock.New(vhostvsock.Config{CID: GuestCID, Dial: s.Dial, Log: s.Log}),
		cancel: cancel, ended: make(chan struct{}),
	}
	started := make(chan error)
	go vm.supervise(ctx, cmd, ours, started)
	if err := <-started; err != nil {
		return nil, err
	}
	return vm, nil
}

// supervise starts QEMU, serves its device and waits for both to end, all on one thread that lasts as
// long: the parent-death signal counts the thread that forked as the parent.
func (vm *VM) supervise(ctx context.Context, cmd *exec.Cmd, ours *net.UnixConn, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer vm.cancel()
	if err := cmd.Start(); err != nil {
		ours.Close()
		started <- explainStart(err)
		return
	}
	vm.process = cmd.Process
	started <- nil
	stop := context.AfterFunc(ctx, vm.kill)
	defer stop()
	served := make(chan error, 1)
	go func() {
		err := vm.Device.Serve(ctx, ours)
		vm.kill() // without its device the guest hangs
		served <- err
	}()
	err := cmd.Wait()
	vm.cancel()
	vm.err = errors.Join(<-served, exitError(err))
	if errors.Is(vm.err, context.Canceled) && ctx.Err() != nil {
		vm.err = context.Cause(ctx)
	}
	close(vm.ended)
}

// exitError tells a QEMU that failed from one that ended with its guest, or was killed by us.
func exitError(err error) error {
	var exit *exec.ExitError
	if err == nil || errors.As(err, &exit) && signaled(exit, unix.SIGKILL) {
		return nil
	}
	return fmt.Errorf("QEMU: %w", err)
}

func signaled(e *exec.ExitError, sig syscall.Signal) bool {
	ws, ok := e.Sys().(syscall.WaitStatus)
	return ok && ws.Signaled() && ws.Signal() == sig
}

func explainStart(err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EUSERS) {
		return &Error{fmt.Errorf("starting QEMU in namespaces of its own: %w", err), "sysctl user.max_user_namespaces must not be 0, and kernel.unprivileged_userns_clone, where it exists, 1"}
	}
	return fmt.Errorf("starting QEMU: %w", err)
}

// kill ends QEMU at once.
func (vm *VM) kill() { _ = vm.process.Kill() }

// Kill ends the VM at once.
func (vm *VM) Kill() { vm.cancel() }

// Done is closed once nothing of the VM runs any more.
func (vm *VM) Done() <-chan struct{} { return vm.ended }

// Err returns why the VM ended, once Done is closed: nil where the guest ended it, by power off, reboot
// or panic.
func (vm *VM) Err() error {
	<-vm.ended
	return vm.err
}

// Paused calls f while neither the machine nor its device runs.
func (vm *VM) Paused(f func() error) error {
	vm.mu.Lock()
	defer vm.mu.Unlock()
	if err := vm.process.Signal(unix.SIGSTOP); err != nil {
		return fmt.Errorf("pausing the machine: %w", err)
	}
	defer func() { _ = vm.process.Signal(unix.SIGCONT) }()
	if err := vm.awaitStopped(); err != nil {
		return err
	}
	return vm.Device.Frozen(f)
}

// awaitStopped waits until every thread of QEMU has stopped: SIGSTOP is told to one and passed on.
func (vm *VM) awaitStopped() error {
	for range 1000 {
		stopped, err := allStopped(vm.process.Pid)
		if stopped || err != nil {
			return err
		}
		time.Sleep(100 * time.Microsecond)
	}
	return errors.New("the machine does not pause")
}

// allStopped reports whether all threads of a process are stopped.
func allStopped(pid int) (bool, error) {
	dir := fmt.Sprintf("/proc/%d/task", pid)
	tasks, err := os.ReadDir(dir)
	if err != nil {
		return false, err
	}
	for _, t := range tasks {
		b, err := os.ReadFile(dir + "/" + t.Name() + "/stat")
		if err != nil {
			continue // has ended
		}
		i := strings.LastIndex(string(b), ") ") // the name before it may hold anything
		if i < 0 || !strings.HasPrefix(string(b[i+2:]), "T") {
			return false, nil
		}
	}
	return len(tasks) > 0, nil
}

// memfd returns b as a file in memory that nobody can change.
func memfd(name string, b []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := f.Write(b); err != nil {
		f.Close()
		return nil, err
	}
	if err := seal(f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// sealWait bounds how long the kernel may still be at work on pages that were written.
const sealWait = 5 * time.Second

// seal has nobody change a file in memory any more. A page that the kernel itself holds for a moment, to move it, say, makes
// that fail as one that somebody can still write does: F_ADD_SEALS in fcntl(2).
func seal(f *os.File) error {
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	for end := time.Now().Add(sealWait); ; time.Sleep(10 * time.Millisecond) {
		_, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, unix.EBUSY) || time.Now().After(end):
			return fmt.Errorf("sealing %q: %w", f.Name(), err)
		}
	}
}
