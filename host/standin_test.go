package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"torno.internal/host/internal/vhostvsock"
	"torno.internal/host/internal/vmm"
)

// A stand-in for Firecracker and Cloud Hypervisor, as a process of its own: it is started as they are, makes the
// socket of the vsock device as they do, refusing to start where something is already, and keeps to their
// protocol there (docs/vsock.md of either): what the guest connects to at port P of the host is a connection
// to BASE_P; who connects to BASE and says "CONNECT P\n" is connected to port P in the guest and told "OK n\n".
// What it computes with is QEMU, whose machine stands for theirs.

// standIn is the first argument of the test binary that makes it the stand-in.
const standIn = "stand-in"

// A standInMachine is what either configuration says.
type standInMachine struct {
	kind                 vmm.Machine
	kernel, initrd, disk string
	readOnly             bool
	words                string
	cpus                 int
	memory               uint64 // MiB
	cid                  uint32
	socket               string
}

// runStandIn is the process: args are the VMM's name and its arguments. It returns an exit status.
func runStandIn(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	m, err := parseStandIn(args)
	if err == nil {
		err = m.run(ctx)
	}
	if err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "stand-in:", err)
		return 1
	}
	return 0
}

func parseStandIn(args []string) (*standInMachine, error) {
	switch {
	case len(args) == 4 && args[0] == "firecracker" && args[1] == "--no-api" && args[2] == "--config-file":
		return parseFirecracker(args[3])
	case len(args) > 1 && args[0] == "cloud-hypervisor":
		return parseCloudHypervisor(args[1:])
	}
	return nil, fmt.Errorf("arguments %q", args)
}

// parseFirecracker reads the file as Firecracker does: keys that it does not know are errors.
func parseFirecracker(path string) (*standInMachine, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var c struct {
		Boot struct {
			Kernel string  `json:"kernel_image_path"`
			Initrd *string `json:"initrd_path"`
			Args   string  `json:"boot_args"`
		} `json:"boot-source"`
		Drives []struct {
			ID       string `json:"drive_id"`
			Path     string `json:"path_on_host"`
			Root     bool   `json:"is_root_device"`
			ReadOnly bool   `json:"is_read_only"`
		} `json:"drives"`
		Machine struct {
			CPUs   int    `json:"vcpu_count"`
			Memory uint64 `json:"mem_size_mib"`
		} `json:"machine-config"`
		Vsock struct {
			CID  uint32 `json:"guest_cid"`
			Path string `json:"uds_path"`
		} `json:"vsock"`
		Entropy *struct{} `json:"entropy"`
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return nil, err
	}
	if len(c.Drives) != 1 || c.Drives[0].ID == "" {
		return nil, errors.New("want one drive")
	}
	m := &standInMachine{
		kind: vmm.MicroVM, kernel: c.Boot.Kernel, words: c.Boot.Args, disk: c.Drives[0].Path, readOnly: c.Drives[0].ReadOnly,
		cpus: c.Machine.CPUs, memory: c.Machine.Memory, cid: c.Vsock.CID, socket: c.Vsock.Path,
	}
	if c.Boot.Initrd != nil {
		m.initrd = *c.Boot.Initrd
	}
	if c.Drives[0].Root {
		m.words += " root=/dev/vda"
	}
	return m, nil
}

// parseCloudHypervisor reads arguments as Cloud Hypervisor does, as far as they are written.
func parseCloudHypervisor(args []string) (*standInMachine, error) {
	m := &standInMachine{kind: vmm.Q35}
	for ; len(args) >= 2; args = args[2:] {
		options := map[string]string{}
		for o := range strings.SplitSeq(args[1], ",") {
			k, v, _ := strings.Cut(o, "=")
			options[k] = v
		}
		var err error
		switch args[0] {
		case "--kernel":
			m.kernel = args[1]
		case "--initramfs":
			m.initrd = args[1]
		case "--cmdline":
			m.words = args[1]
		case "--cpus":
			m.cpus, err = strconv.Atoi(options["boot"])
		case "--memory":
			m.memory, err = strconv.ParseUint(strings.TrimSuffix(options["size"], "M"), 10, 32)
		case "--disk":
			m.disk, m.readOnly = options["path"], options["readonly"] == "on"
		case "--vsock":
			var cid uint64
			cid, err = strconv.ParseUint(options["cid"], 10, 32)
			m.cid, m.socket = uint32(cid), options["socket"]
		case "--serial", "--console":
		default:
			err = errors.New("unknown")
		}
		if err != nil {
			return nil, fmt.Errorf("argument %q: %w", args[0], err)
		}
	}
	if len(args) > 0 {
		return nil, fmt.Errorf("argument %q is left", args[0])
	}
	return m, nil
}

// run starts the machine and ends with it.
func (m *standInMachine) run(ctx context.Context) error {
	if m.cid < 3 {
		return fmt.Errorf("CID %d", m.cid)
	}
	spec := vmm.Spec{
		Machine: m.kind, Accel: vmm.TCG, Memory: m.memory << 20, CPUs: m.cpus, Words: strings.Fields(m.words), Console: os.Stdout,
		Dial: vhostvsock.Hybrid(m.socket), Log: slog.New(slog.DiscardHandler),
	}
	kernel, err := os.Open(m.kernel)
	if err != nil {
		return err
	}
	defer kernel.Close()
	spec.Kernel = kernel
	if m.initrd != "" {
		if spec.Initrd, err = os.ReadFile(m.initrd); err != nil {
			return err
		}
	}
	flag := os.O_RDWR
	if m.readOnly {
		flag = os.O_RDONLY
	}
	disk, err := os.OpenFile(m.disk, flag, 0)
	if err != nil {
		return err
	}
	defer disk.Close()
	spec.Disks = []vmm.Disk{{Name: "standin", File: disk, ReadOnly: m.readOnly}}
	base, err := net.Listen("unix", m.socket) // fails where there is anything
	if err != nil {
		return err
	}
	vm, err := vmm.Start(ctx, spec)
	if err != nil {
		return errors.Join(err, base.Close())
	}
	served := make(chan error, 1)
	go func() { served <- vm.Device.ServeHybrid(ctx, base) }()
	<-vm.Done()
	base.Close()
	return errors.Join(vm.Err(), <-served)
}

// copySelf puts the test binary where other users may run it.
func copySelf(to string) error {
	from, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer from.Close()
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	return errors.Join(err, f.Chmod(0o755), f.Close())
}
