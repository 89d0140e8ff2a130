package vmm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"sync"
	"time"
)

// probeTime is how long a machine under KVM may take to boot to its first program. It takes a tenth of
// that where it works, and for ever where KVM opens but can't run an ordinary kernel.
const probeTime = 3 * time.Second

// probeLine is what the guest says when it is asked only whether the machine works.
const probeLine = "torno-guest: this machine works"

// A verdict is what a probe found, and what it holds for.
type verdict struct {
	Boot    string  `json:"boot"`    // this boot of the host
	QEMU    string  `json:"qemu"`    // file, size and time
	Kernel  string  `json:"kernel"`  // the same
	Machine Machine `json:"machine"` // that was probed
	Works   bool    `json:"works"`
}

// FindAccel finds out whether KVM runs s, by doing it with nothing but the probe, once for each boot of
// the host, QEMU, kernel and machine: the file cache keeps the answers. Of several who ask at the same time
// one probes and the others wait for it. Where KVM doesn't run s, why is a few words on it.
func FindAccel(ctx context.Context, cache string, s Spec) (accel Accel, why string, err error) {
	device, err := os.OpenFile(kvmDevice, os.O_RDWR, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return TCG, "this machine has no /dev/kvm", nil
	case err != nil:
		return TCG, fmt.Sprintf("%v", err), nil
	}
	device.Close()
	now, err := currently(s)
	if err != nil {
		return "", "", err
	}
	c, err := openVerdicts(ctx, cache)
	if err != nil {
		return "", "", err
	}
	defer c.close()
	works, known := c.find(now)
	if !known {
		if works, err = probe(ctx, s); err != nil {
			return "", "", err
		}
		now.Works = works
		c.add(now)
	}
	if works {
		return KVM, "", nil
	}
	return TCG, "/dev/kvm is there but does not boot this kernel", nil
}

// currently returns what a verdict would hold for.
func currently(s Spec) (verdict, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return verdict{}, err
	}
	path, err := FindQEMU()
	if err != nil {
		return verdict{}, err
	}
	qemu, err := os.Stat(path)
	if err != nil {
		return verdict{}, err
	}
	kernel, err := s.Kernel.Stat()
	if err != nil {
		return verdict{}, err
	}
	identity := func(i fs.FileInfo) string { return fmt.Sprintf("%s %d %v", i.Name(), i.Size(), i.ModTime().UTC()) }
	machine := s.Machine
	if machine == "" {
		machine = MicroVM
	}
	return verdict{Boot: strings.TrimSpace(string(boot)), QEMU: identity(qemu), Kernel: identity(kernel), Machine: machine}, nil
}

// probe reports whether KVM boots the kernel.
func probe(ctx context.Context, s Spec) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	found := &finder{want: []byte(probeLine)}
	vm, err := Start(ctx, Spec{
		Machine: s.Machine, Accel: KVM, Memory: 128 << 20, Kernel: s.Kernel, Initrd: s.Initrd,
		Words: []string{"torno.probe"}, Console: found, Log: s.Log,
		Dial: func(context.Context, uint32) (*net.UnixConn, error) { return nil, errors.New("nobody is there") },
	})
	if err != nil {
		return false, err
	}
	<-vm.Done()
	if parent := context.Cause(ctx); parent != nil && !errors.Is(parent, context.DeadlineExceeded) {
		return false, parent
	}
	return found.has(), nil
}

// A finder looks for something in what is written to it. It is safe for concurrent use.
type finder struct {
	want []byte

	mu    sync.Mutex
	tail  []byte
	found bool
}

func (f *finder) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tail = append(f.tail, p...)
	f.found = f.found || bytes.Contains(f.tail, f.want)
	f.tail = f.tail[max(0, len(f.tail)-len(f.want)):]
	return len(p), nil
}

func (f *finder) has() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.found
}
