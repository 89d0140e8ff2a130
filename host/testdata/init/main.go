// Init stands for a kernel that has its drivers inside and mounts its root itself: it loads the drivers, mounts
// /dev/vda below a tmpfs, puts the files below /payload there, and becomes the program that init= names.
package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(); err != nil {
		fmt.Println("init:", err)
		_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	}
}

func run() error {
	for _, m := range [][2]string{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}} {
		if err := mount(m[0], m[1], m[0], ""); err != nil {
			return err
		}
	}
	list, err := os.ReadFile("/torno/modules")
	if err != nil {
		return err
	}
	for name := range strings.FieldsSeq(string(list)) {
		f, err := os.Open("/torno/" + name)
		if err != nil {
			return err
		}
		if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	for range 5000 {
		if _, err := os.Stat("/dev/vda"); err == nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if err := unix.Mount("/dev/vda", mkdir("/lower"), "ext4", unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("/dev/vda: %w", err)
	}
	if err := mount("tmpfs", "/upper", "tmpfs", ""); err != nil {
		return err
	}
	mkdir("/upper/u")
	mkdir("/upper/w")
	if err := mount("overlay", "/new", "overlay", "lowerdir=/lower,upperdir=/upper/u,workdir=/upper/w"); err != nil {
		return err
	}
	if err := os.CopyFS("/new", os.DirFS("/payload")); err != nil {
		return err
	}
	for _, dir := range []string{"/proc", "/sys", "/dev"} {
		if err := unix.Mount(dir, mkdir("/new"+dir), "", unix.MS_MOVE, ""); err != nil {
			return err
		}
	}
	return become(argument("init"))
}

// become makes /new the root and path the program.
func become(path string) error {
	if err := os.Chdir("/new"); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return err
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	return fmt.Errorf("%s: %w", path, unix.Exec(path, []string{path}, []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/"}))
}

// argument returns a word's value on the kernel command line.
func argument(name string) string {
	line, _ := os.ReadFile("/new/proc/cmdline")
	for word := range strings.FieldsSeq(string(line)) {
		if v, ok := strings.CutPrefix(word, name+"="); ok {
			return v
		}
	}
	return "/bin/sh"
}

func mount(source, target, fstype, data string) error {
	if err := unix.Mount(source, mkdir(target), fstype, 0, data); err != nil {
		return fmt.Errorf("%s: %w", target, err)
	}
	return nil
}

func mkdir(dir string) string {
	_ = os.MkdirAll(dir, 0o755)
	return dir
}
