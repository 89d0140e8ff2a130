package cli

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"torno.internal/host/internal/doctor"
	"torno.internal/host/internal/namespace"
	"torno.internal/host/internal/vmm"
	"torno.internal/images/kernel"
	"torno.internal/images/rootfs"
)

func (d *diagnosis) kernel(context.Context) doctor.Finding { return doctor.Kernel(doctor.Release()) }

func (d *diagnosis) confinement(context.Context) doctor.Finding {
	return doctor.Confinement(doctor.LandlockABI(), d.sysctl)
}

func (d *diagnosis) userns(context.Context) doctor.Finding {
	return doctor.UserNamespaces(d.sysctl, isRoot())
}

// tryTimeout bounds the trial of namespaces.
const tryTimeout = 20 * time.Second

// namespaces makes some: kernels, sysctls, security modules and containers forbid them in many ways.
func (d *diagnosis) namespaces(ctx context.Context) doctor.Finding {
	ids, err := namespace.FindIDs()
	if err != nil {
		return failed(err, "")
	}
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	began := time.Now()
	if err := namespace.Try(ctx, ids); err != nil {
		return failed(err, "")
	}
	return doctor.OK("made in %v, with nf_tables; ids %d (guest), %d (agent)", time.Since(began).Round(time.Millisecond), ids.Peer(), ids.Agent())
}

// tryKVM makes a VM, and boots a kernel in one if there is one: some machines offer KVM that does not.
func (d *diagnosis) tryKVM(ctx context.Context) doctor.Finding {
	f := doctor.KVM(d.kvm, doctor.TryKVM(d.kvm))
	if f.State != doctor.StateOK {
		return f
	}
	place, err := rootfs.Place()
	if err != nil {
		return f
	}
	k, err := kernel.Store{Dir: filepath.Join(place, ".kernels")}.Open("")
	if err != nil {
		return f // images says so
	}
	l := &launch{}
	if l.guest, err = l.findGuest(); err != nil {
		return f // guest says so
	}
	image, err := os.Open(k.Path())
	if err != nil {
		return failed(err, "")
	}
	defer image.Close()
	initrd, err := l.initrd(k, nil)
	if err != nil {
		return failed(err, "")
	}
	accel, why, err := vmm.FindAccel(ctx, filepath.Join(place, ".kvm.json"), vmm.Spec{Kernel: image, Initrd: initrd})
	switch {
	case err != nil:
		return f // qemu says so
	case accel != vmm.KVM:
		return doctor.Warn("on a VM: is nested virtualisation complete on its host?", "%s: VMs are emulated, which is ten times slower", why)
	}
	return doctor.OK("%s boots VMs", d.kvm)
}

// qemu looks for the emulator, and what it says of itself.
func (d *diagnosis) qemu(ctx context.Context) doctor.Finding {
	path, err := vmm.FindQEMU()
	if err != nil {
		return missing(err, "")
	}
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return failed(err, "is "+path+" whole? it does not even say its version")
	}
	return doctor.OK("%s", firstLine(string(out)))
}

func (d *diagnosis) vhostVSOCK(context.Context) doctor.Finding {
	operator, _ := d.operator()
	return doctor.VhostVSOCK(d.vhost, operator.Listen != "")
}

// images looks for what torno run boots unless it is told otherwise.
func (d *diagnosis) images(context.Context) doctor.Finding {
	place, err := rootfs.Place()
	if err != nil {
		return failed(err, "")
	}
	const build = "torno image build --if-missing"
	k, err := kernel.Store{Dir: filepath.Join(place, ".kernels")}.Open("")
	if errors.Is(err, fs.ErrNotExist) {
		return doctor.Warn(build, "%s has no kernel; the first VM gets one", place)
	}
	if err != nil {
		return failed(err, build)
	}
	image, err := rootfs.Store{Dir: place}.Open(rootfs.Base)
	if errors.Is(err, fs.ErrNotExist) {
		return doctor.Warn(build, "%s has no image %s; the first VM builds it", place, rootfs.Base)
	}
	if err != nil {
		return failed(err, build)
	}
	return doctor.OK("%s, kernel %s", image.Path(), k.Release)
}

// guest compares the guest with this program: they are of one build.
func (d *diagnosis) guest(ctx context.Context) doctor.Finding {
	path, err := (&launch{}).findGuest()
	if err != nil {
		return failed(err, "")
	}
	out, err := exec.CommandContext(ctx, path, "-version").Output()
	version := strings.TrimPrefix(firstLine(string(out)), "torno-guest ")
	switch {
	case err != nil:
		return doctor.Fail("install torno and torno-guest of one build", "%s does not run: %v", path, err)
	case version != d.version:
		return doctor.Warn("install torno and torno-guest of one build", "%s is %s, this torno is %s", path, version, d.version)
	}
	return doctor.OK("%s, %s", path, version)
}

func (d *diagnosis) clock(context.Context) doctor.Finding {
	self, err := os.Executable()
	if err != nil {
		return failed(err, "")
	}
	info, err := os.Stat(self)
	if err != nil {
		return failed(err, "")
	}
	return doctor.Clock(time.Now(), info.ModTime(), doctor.Synced())
}

// disk looks for room where the audit is written, where images are, and where a VM's disk is made.
func (d *diagnosis) disk(context.Context) doctor.Finding {
	var spaces []doctor.Space
	if dir, err := stateDir(); err == nil {
		spaces = append(spaces, doctor.Space{Dir: dir, MiB: 256, For: "state and audit"})
	}
	if dir, err := rootfs.Place(); err == nil {
		spaces = append(spaces, doctor.Space{Dir: dir, MiB: 2048, For: "images"})
	}
	return doctor.Disk(append(spaces, doctor.Space{Dir: os.TempDir(), MiB: 1024, For: "what VMs write"})...)
}
