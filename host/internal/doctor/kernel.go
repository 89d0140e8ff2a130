package doctor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Kernel judges a release, as uname gives it. Namespaces need mounts with mapped ids, of Linux 5.12.
func Kernel(release string) Finding {
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		return Warn("torno needs Linux 5.12 or newer", "%q is no release that can be read", release)
	}
	if major < 5 || major == 5 && minor < 12 {
		return Fail("torno needs Linux 5.12 or newer", "kernel %s is too old", release)
	}
	return OK("Linux %s", release)
}

// Release returns this kernel's.
func Release() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err.Error()
	}
	return unix.ByteSliceToString(u.Release[:])
}

// LandlockABI asks the kernel which version of landlock(7) it has; 0: none.
func LandlockABI() int {
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0
	}
	return int(abi)
}

// Confinement judges what QEMU and the guest are confined by: landlock's version, and what the kernel says that it has at
// /proc/sys/kernel/seccomp.
func Confinement(abi int, sysctl string) Finding {
	actions, err := os.ReadFile(filepath.Join(sysctl, "kernel/seccomp/actions_avail"))
	switch {
	case err != nil || !strings.Contains(string(actions), "errno"):
		return Fail("a kernel with CONFIG_SECCOMP_FILTER", "the kernel filters no system calls")
	case abi == 0:
		return Warn("boot with landlock among lsm=, as in lsm=landlock,lockdown,yama,apparmor,bpf", "no landlock: QEMU sees the file system as its user does")
	}
	return OK("seccomp, landlock version %d", abi)
}

// UserNamespaces judges whether a user may make them. Sysctl is /proc/sys; root may in any case, but for the number.
func UserNamespaces(sysctl string, root bool) Finding {
	value := func(name string) string {
		b, err := os.ReadFile(filepath.Join(sysctl, name))
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(b))
	}
	switch {
	case value("user/max_user_namespaces") == "":
		return Fail("a kernel with CONFIG_USER_NS", "the kernel has no user namespaces")
	case value("user/max_user_namespaces") == "0":
		return Fail("as root: sysctl user.max_user_namespaces=10000", "no user namespace may be made: user.max_user_namespaces is 0")
	case root:
		return OK("root may make them")
	case value("kernel/unprivileged_userns_clone") == "0":
		return Fail("as root: sysctl kernel.unprivileged_userns_clone=1", "only root may make them: kernel.unprivileged_userns_clone is 0")
	case value("kernel/apparmor_restrict_unprivileged_userns") == "1":
		return Warn("as root, a profile for torno with the rule userns, or sysctl kernel.apparmor_restrict_unprivileged_userns=0",
			"AppArmor lets only programs with a profile make them (kernel.apparmor_restrict_unprivileged_userns is 1)")
	}
	return OK("users may make them")
}

// Clock compares now with the time that this program was made: certificates of a clock that is behind it are not valid yet.
// Synced says whether something keeps the clock.
func Clock(now, made time.Time, synced bool) Finding {
	switch {
	case now.Before(made.Add(-time.Hour)):
		return Fail("set the clock: timedatectl set-ntp true", "it is %s, before torno was made", now.Format(time.RFC3339))
	case !synced:
		return OK("%s; no time service is known to keep it", now.Format(time.RFC3339))
	}
	return OK("%s, kept by a time service", now.Format(time.RFC3339))
}

// Synced reports whether the kernel says that something keeps its clock.
func Synced() bool {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	return err == nil && state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0
}

// ioctls of linux/kvm.h, and the only version of the interface that there is.
const (
	kvmGetAPIVersion = 0xae00
	kvmCreateVM      = 0xae01
	kvmAPIVersion    = 12
)

// TryKVM opens the device and makes a VM, which is gone again at once.
func TryKVM(device string) error {
	fd, err := unix.Open(device, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	version, err := unix.IoctlRetInt(fd, kvmGetAPIVersion)
	if err != nil {
		return fmt.Errorf("it is no KVM: %w", err)
	}
	if version != kvmAPIVersion {
		return fmt.Errorf("its interface has version %d, not %d", version, kvmAPIVersion)
	}
	vm, err := unix.IoctlRetInt(fd, kvmCreateVM)
	if err != nil {
		return fmt.Errorf("it makes no VM: %w", err)
	}
	return unix.Close(vm)
}

// KVM judges what TryKVM said. Without it VMs are emulated.
func KVM(device string, err error) Finding {
	const slower = "VMs are emulated, which is ten times slower"
	switch {
	case err == nil:
		return OK("%s makes VMs", device)
	case errors.Is(err, os.ErrNotExist):
		return Warn("on hardware: virtualisation in the firmware, modprobe kvm_intel or kvm_amd; in a VM: nested virtualisation", "there is no %s: %s", device, slower)
	case errors.Is(err, os.ErrPermission):
		return Warn("as root: usermod -aG kvm USER, and log in anew", "%s is not for us: %s", device, slower)
	}
	return Warn("is virtualisation on in the firmware, or nested virtualisation on the host of this VM?", "%s: %v: %s", device, err, slower)
}

// VhostVSOCK judges the kernel's vsock device by its being there; it is not opened. Torno brings a device of its own, so that only
// VMs of others need it.
func VhostVSOCK(device string, wanted bool) Finding {
	_, err := os.Stat(device)
	switch {
	case err == nil:
		return OK("%s is there", device)
	case wanted:
		return Fail("as root: modprobe vhost_vsock", "there is no %s, and listen in broker.toml is for VMs that use it", device)
	}
	return OK("not there, and not needed: torno's VMs bring their own")
}
