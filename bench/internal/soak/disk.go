package soak

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A disk is what a broker's state lies on, and can be told to go wrong.
type disk interface {
	tell(ctx context.Context, command string) error
	close() error
}

// A slowDisk is the file system of .ci/tools/slowfs, which says what it can be told.
type slowDisk struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	said  *bufio.Reader
	out   *os.File
}

// newSlowDisk mounts one at place, which keeps its files in a directory beside it.
func newSlowDisk(program, place string) (*slowDisk, error) {
	below := place + ".files"
	if err := os.MkdirAll(below, 0o700); err != nil {
		return nil, err
	}
	d := &slowDisk{cmd: exec.Command(program, below, place)}
	d.cmd.Stderr, d.cmd.SysProcAttr = os.Stderr, &syscall.SysProcAttr{Setpgid: true}
	var err error
	if d.stdin, err = d.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	d.out, d.said, d.cmd.Stdout = out, bufio.NewReader(out), in
	err = d.cmd.Start()
	in.Close()
	if err != nil {
		out.Close()
		return nil, fmt.Errorf("%w: make soak builds it", err)
	}
	if err := d.expect("mounted"); err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

func (d *slowDisk) expect(want string) error {
	_ = d.out.SetReadDeadline(time.Now().Add(patience))
	line, err := d.said.ReadString('\n')
	if line = strings.TrimSpace(line); err == nil && line != want {
		err = fmt.Errorf("slowfs says %q", line)
	}
	return err
}

func (d *slowDisk) tell(_ context.Context, command string) error {
	if _, err := io.WriteString(d.stdin, command+"\n"); err != nil {
		return err
	}
	return d.expect("ok")
}

func (d *slowDisk) close() error {
	d.stdin.Close()
	defer d.out.Close()
	ended := make(chan error, 1)
	go func() { ended <- d.cmd.Wait() }()
	select {
	case err := <-ended:
		return err
	case <-time.After(patience):
		_ = d.cmd.Process.Kill()
		return errors.Join(errors.New("slowfs does not end"), <-ended)
	}
}

// An ext4Disk is a real file system on a file. It can be told to "abort", as the kernel does when it finds the disk broken:
// from then on it can only be read. "repair" makes it anew what it was, with what had reached it. What else it is told goes
// to the disk that the file lies on, if it is one that can be told something: writes go on where fsync takes its time, which
// no file system of FUSE's can do by itself, for the kernel lets nobody write to a file there while it is synced.
type ext4Disk struct {
	image, place string
	below        *slowDisk // nil: the machine's own
}

const ext4Size = 128 << 20 // bytes

// newExt4Disk mounts one at place, on a disk that slowfs makes slow; without slowfs on the machine's own.
func newExt4Disk(ctx context.Context, slowfs, place string) (d *ext4Disk, err error) {
	d = &ext4Disk{place: place, image: place + ".img"}
	if slowfs != "" {
		below := place + ".below"
		if err := os.Mkdir(below, 0o700); err != nil {
			return nil, err
		}
		if d.below, err = newSlowDisk(slowfs, below); err != nil {
			return nil, err
		}
		d.image = filepath.Join(below, "img")
	}
	if err := d.make(ctx); err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

func (d *ext4Disk) make(ctx context.Context) error {
	f, err := os.Create(d.image)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Truncate(ext4Size), f.Close(), command(ctx, "mkfs.ext4", "-q", d.image)); err != nil {
		return err
	}
	if err := d.mount(ctx); err != nil {
		return err
	}
	return errors.Join(os.Remove(filepath.Join(d.place, "lost+found")), os.Chmod(d.place, 0o700))
}

func (d *ext4Disk) mount(ctx context.Context) error {
	return command(ctx, "mount", "-o", "loop,errors=remount-ro", d.image, d.place)
}

func (d *ext4Disk) tell(ctx context.Context, what string) error {
	switch what {
	case "abort":
		return command(ctx, "mount", "-o", "remount,abort", d.place)
	case "repair":
	default:
		return d.below.tell(ctx, what)
	}
	if err := errors.Join(command(ctx, "umount", d.place), command(ctx, "sh", "-c", "fsck.ext4 -fy "+d.image+" >/dev/null; test $? -lt 4")); err != nil {
		return err
	}
	return d.mount(ctx)
}

func (d *ext4Disk) close() error {
	err := unix.Unmount(d.place, 0)
	if errors.Is(err, unix.EINVAL) { // it never was mounted
		err = nil
	}
	if d.below != nil {
		err = errors.Join(err, d.below.close())
	}
	return err
}

// command runs a program of the system's.
func command(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
