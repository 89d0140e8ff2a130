package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"torno.internal/host/internal/namespace"
	"torno.internal/host/internal/vhostvsock"
	"torno.internal/host/internal/vmm"
	"torno.internal/images/disk"
	"torno.internal/images/initramfs"
	"torno.internal/images/kernel"
	"torno.internal/images/rootfs"
	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// A machine is what torno run was told of the VM.
type machine struct {
	kind   string
	image  string
	kernel string
	memory string
	disk   string
	cpus   int
}

// Defaults of a machine.
const (
	defaultMemory = "2G"
	defaultDisk   = "20G"
	maxShown      = 4 << 30 // bytes of one directory that is shown to the command
)

func (m *machine) flags(f *pflag.FlagSet) {
	f.StringVar(&m.image, "image", rootfs.Base, "`name` of the VM's root file system (torno image list)")
	f.StringVar(&m.disk, "disk", defaultDisk, "`size` of what the command can write; it takes up only what is written. 0: memory")
	f.StringVar(&m.memory, "memory", defaultMemory, "the VM's memory, in M or G")
	f.IntVar(&m.cpus, "cpus", 1, "the VM's processors")
	f.StringVar(&m.kernel, "kernel", "", "`file` of another kernel: linux-image-*.deb, bzImage or vmlinux")
	f.StringVar(&m.kind, "machine", string(vmm.MicroVM), "kind of machine: microvm, or q35 for kernels that need PCI")
}

// A vmPlan is all that a VM needs, opened.
type vmPlan struct {
	spec   vmm.Spec
	kernel string // its release
	files  []*os.File
}

// describe returns what people are told of the VM.
func (p *vmPlan) describe(image string) *control.Machine {
	return &control.Machine{
		Kind: string(p.spec.Machine), Accel: string(p.spec.Accel), Image: image, Kernel: p.kernel,
		Memory: p.spec.Memory, CPUs: p.spec.CPUs,
	}
}

func (p *vmPlan) close() {
	for _, f := range p.files {
		f.Close()
	}
}

// planVM opens kernel, image and disks. What is missing and can be had is got first.
func (l *launch) planVM(ctx context.Context, shown []string) (plan *vmPlan, err error) {
	p := &vmPlan{spec: vmm.Spec{Machine: vmm.Machine(l.machine.kind), CPUs: l.machine.cpus, Log: l.log}}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	if p.spec.Memory, err = parseSize("--memory", l.machine.memory); err != nil {
		return nil, err
	}
	if err := p.spec.Check(); err != nil {
		return nil, err
	}
	size, err := parseSize("--disk", l.machine.disk)
	if err != nil {
		return nil, err
	}
	if l.work != nil {
		if err := l.work.checkRoom(max(size, p.spec.Memory/2), "the VM", "--disk 40G gives it more room"); err != nil {
			return nil, err
		}
	}
	place, err := rootfs.Place()
	if err != nil {
		return nil, err
	}
	k, err := l.findKernel(ctx, place)
	if err != nil {
		return nil, err
	}
	p.kernel = k.Release
	if p.spec.Kernel, err = p.open(k.Path()); err != nil {
		return nil, err
	}
	if err := l.addDisks(ctx, p, place, size, shown); err != nil {
		return nil, err
	}
	l.timings.over("image")
	if p.spec.Initrd, err = l.initrd(k, shown); err != nil {
		return nil, err
	}
	l.timings.over("initial file system")
	p.spec.Words = append(p.spec.Words, "torno.broker=vsock://2:"+strconv.Itoa(protocol.BrokerPort), "torno.run=vsock://2:"+strconv.Itoa(protocol.RunPort))
	if l.debug {
		p.spec.Words = append(p.spec.Words, "torno.debug")
	}
	if l.timings != nil {
		p.spec.Words = append(p.spec.Words, "torno.timings")
	}
	p.spec.Accel, err = l.findAccel(ctx, place, p)
	l.timings.over("probe")
	return p, err
}

func (p *vmPlan) open(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err == nil {
		p.files = append(p.files, f)
	}
	return f, err
}

// say tells a person what takes time.
func say(line string) { fmt.Fprintln(os.Stderr, "torno: "+line) }

// findKernel returns the kernel to boot: the one that was named, or Debian's, which is got if need be.
func (l *launch) findKernel(ctx context.Context, place string) (*kernel.Kernel, error) {
	store := kernel.Store{Dir: filepath.Join(place, ".kernels")}
	switch {
	case strings.HasSuffix(l.machine.kernel, ".deb"):
		return store.InstallPackage(l.machine.kernel, filepath.Base(l.machine.kernel))
	case l.machine.kernel != "":
		return store.InstallFiles(l.machine.kernel, modulesOf(l.machine.kernel))
	}
	k, err := store.Open("")
	if errors.Is(err, fs.ErrNotExist) {
		m := newMeter(os.Stderr)
		defer m.end()
		return store.Fetch(ctx, say, m.report)
	}
	return k, err
}

// modulesOf returns where distributions keep the modules of a kernel /boot/vmlinuz-RELEASE, if they are there.
func modulesOf(image string) string {
	_, release, ok := strings.Cut(filepath.Base(image), "-")
	dir := filepath.Join("/lib/modules", release)
	if info, err := os.Stat(dir); !ok || err != nil || !info.IsDir() {
		return ""
	}
	return dir
}

// Names of the disks that the guest finds.
const (
	rootDisk    = "torno-root"
	scratchDisk = "torno-scratch"
)

// addDisks adds the root, what is written over it, and the directories that the command is shown.
func (l *launch) addDisks(ctx context.Context, p *vmPlan, place string, size uint64, shown []string) error {
	image, err := openImage(ctx, rootfs.Store{Dir: place}, l.machine.image)
	if err != nil {
		return err
	}
	root, err := p.open(image.Path())
	if err != nil {
		return err
	}
	p.spec.Disks = append(p.spec.Disks, vmm.Disk{Name: rootDisk, File: root, ReadOnly: true})
	p.spec.Words = append(p.spec.Words, "torno.root")
	if size > 0 {
		scratch, err := l.scratch(p, size)
		if err != nil {
			return &hintError{err, "--disk 0 keeps what is written in memory"}
		}
		p.spec.Disks = append(p.spec.Disks, vmm.Disk{Name: scratchDisk, File: scratch})
		p.spec.Words = append(p.spec.Words, "torno.scratch")
	}
	for i, dir := range shown {
		f, err := disk.Temporary()
		if err != nil {
			return err
		}
		p.files = append(p.files, f)
		if err := disk.FromDirectory(dir, f, maxShown); err != nil {
			if errors.Is(err, disk.ErrTooLarge) {
				err = &hintError{fmt.Errorf("directory %q holds more than %d GiB", dir, maxShown>>30), "change to a smaller one"}
			}
			return err
		}
		readOnly, err := p.open("/proc/self/fd/" + strconv.Itoa(int(f.Fd()))) // QEMU takes no more than it needs
		if err != nil {
			return err
		}
		p.spec.Disks = append(p.spec.Disks, vmm.Disk{Name: "torno-dir" + strconv.Itoa(i), File: readOnly, ReadOnly: true})
	}
	return nil
}

// scratch returns what the command writes to. With a workspace it is kept until that has come back.
func (l *launch) scratch(p *vmPlan, size uint64) (*os.File, error) {
	if l.work != nil {
		var err error
		if l.work.kept, err = newKept(int64(size)); err != nil {
			return nil, err
		}
		return l.work.kept.disk, nil
	}
	f, err := disk.Scratch(int64(size))
	if err == nil {
		p.files = append(p.files, f)
	}
	return f, err
}

// openImage opens an image. The base image is built if it is not there.
func openImage(ctx context.Context, store rootfs.Store, name string) (*rootfs.Image, error) {
	image, err := store.Open(name)
	if name != rootfs.Base || !errors.Is(err, fs.ErrNotExist) {
		return image, err
	}
	store.Waiting = say
	return buildPackages(ctx, store, rootfs.Build{Name: name, Missing: true})
}

// ensureImages gets what the VMs of this machine boot from, where it is not there.
func ensureImages(ctx context.Context) error {
	place, err := rootfs.Place()
	if err != nil {
		return err
	}
	if _, err := vmm.FindQEMU(); err != nil {
		return err
	}
	if _, err := new(launch).findKernel(ctx, place); err != nil {
		return err
	}
	_, err = openImage(ctx, rootfs.Store{Dir: place}, rootfs.Base)
	return err
}

// initrd returns the initial file system: the guest as init, the drivers, and where directories go.
func (l *launch) initrd(k *kernel.Kernel, shown []string, more ...initramfs.File) ([]byte, error) {
	path, err := l.findGuest()
	if err != nil {
		return nil, err
	}
	guest, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	bus := kernel.MMIO
	if vmm.Machine(l.machine.kind) == vmm.Q35 {
		bus = kernel.PCI
	}
	sets := []kernel.Set{bus, kernel.Common}
	if l.root {
		sets = append(sets, kernel.Container)
	}
	modules, contents, err := k.Load(sets...)
	if err != nil {
		return nil, err
	}
	files := []initramfs.File{
		{Name: "init", Mode: initramfs.Regular | 0o755, Data: guest},
		{Name: "torno", Mode: initramfs.Directory | 0o700},
		{Name: "torno/directories", Mode: initramfs.Regular | 0o600, Data: []byte(strings.Join(shown, "\x00"))},
	}
	files = append(files, more...)
	var list strings.Builder
	for i, m := range modules {
		list.WriteString(m.File + "\n")
		files = append(files, initramfs.File{Name: "torno/" + m.File, Mode: initramfs.Regular | 0o600, Data: contents[i]})
	}
	files = append(files, initramfs.File{Name: "torno/modules", Mode: initramfs.Regular | 0o600, Data: []byte(list.String())})
	var b bytes.Buffer
	b.Grow(len(guest) + 4<<20)
	err = initramfs.Write(&b, files)
	return b.Bytes(), err
}

// findAccel returns how to run the VM: by KVM if that really boots it, else by emulation.
func (l *launch) findAccel(ctx context.Context, place string, p *vmPlan) (vmm.Accel, error) {
	accel, why, err := vmm.FindAccel(ctx, filepath.Join(place, ".kvm.json"), p.spec)
	if err == nil && accel == vmm.TCG && isTerminal(os.Stderr) {
		say("emulating the VM, which is slower: " + why)
	}
	return accel, err
}

// bootTime is how long a VM may take until its guest first calls: an emulated one takes two seconds on an idle
// machine, and ten times that on one that is busy.
const bootTime = time.Minute

var errSilent = errors.New("the guest did not say hello")

// startVM starts the VM. Its ports lead to the session's socket and to that of the run channel.
func startVM(ctx context.Context, p *vmPlan, session control.SessionCreated, s start) (sandbox, error) {
	sockets := map[uint32]string{
		protocol.RunPort: filepath.Join(s.dir, runSocket),
	}
	if session.Broker != "" {
		sockets[protocol.BrokerPort] = strings.TrimPrefix(session.Broker, "unix://")
	}
	p.spec.Console = s.console
	var late *time.Timer // of a guest that never calls
	p.spec.Dial = func(ctx context.Context, port uint32) (*net.UnixConn, error) {
		late.Stop()
		path, ok := sockets[port]
		if !ok {
			return nil, fmt.Errorf("nobody serves port %d", port)
		}
		return vhostvsock.DialUnix(ctx, path)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	late = time.AfterFunc(bootTime, func() {
		fmt.Fprintf(s.console, "torno: the guest did not say hello within %v\n", bootTime)
		cancel(errSilent)
	})
	vm, err := vmm.Start(ctx, p.spec)
	if err != nil {
		late.Stop()
		cancel(nil)
		return nil, err
	}
	go func() {
		<-vm.Done()
		late.Stop()
		cancel(nil)
	}()
	if s.prover != nil {
		s.prover.watch(ctx, vm)
	}
	return vm, nil
}

// shownDirectories are what the command sees of this machine's files: the working directory and --mount-ro.
// A home or root directory is no project, and not shown unasked.
func (l *launch) shownDirectories(dir string) ([]string, error) {
	hidden, err := hiddenPaths()
	if err != nil {
		return nil, err
	}
	if l.work != nil {
		dir = "" // the guest has a copy
	}
	home, _ := os.UserHomeDir() // who has none shows none
	return namespace.Spec{Dir: dir, Mounts: l.mounts, Hidden: hidden, Home: home}.Visible()
}

// parseSize reads a number of bytes with M, G or T behind it, or 0.
func parseSize(flag, s string) (uint64, error) {
	if s == "0" {
		return 0, nil
	}
	units := map[byte]uint64{'M': 1 << 20, 'G': 1 << 30, 'T': 1 << 40}
	if s != "" {
		n, err := strconv.ParseUint(s[:len(s)-1], 10, 32)
		if unit := units[s[len(s)-1]&^0x20]; err == nil && unit > 0 && n > 0 {
			return n * unit, nil
		}
	}
	return 0, usageError{&hintError{fmt.Errorf("%s %q is no size", flag, s), flag + " 2G, or 512M"}}
}
