package rootfs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"torno.internal/images/apt"
	"torno.internal/images/disk"
)

// Base is the name of the image that agents get unless told otherwise.
const Base = "base"

// leftOut are files of packages that nobody reads in a VM.
var leftOut = []string{"/usr/share/man/*", "/usr/share/doc/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/lintian/*"}

// A Build says what image to build of Debian's packages.
type Build struct {
	Name    string
	Lock    string     // path; empty: the Store's for that name
	Include []string   // packages beside what every Debian has; nil: what the lock was made for, or Base's
	Missing bool       // an image that is there meanwhile is good
	Report  apt.Report // is told how far it is
	Output  io.Writer  // of mmdebstrap

	bare bool // only what is in Include, unpacked and not set up; for tests that have no minutes
}

// variant returns what mmdebstrap calls the kind of image, and the last hook that it has.
func (b Build) variant() (variant, hook string) {
	if b.bare {
		return "extract", "extract-hook"
	}
	return "minbase", "customize-hook"
}

// Includes returns the packages of Base and others, as a Build wants them.
func Includes(others []string) []string {
	all := slices.Concat(basePackages, others)
	slices.Sort(all)
	return slices.Compact(all)
}

// Build builds an image by mmdebstrap, which needs no container engine and, where the kernel lets users have
// namespaces, no root, and no network: the packages are got before, and only those.
func (s Store) Build(ctx context.Context, b Build) (*Image, error) {
	mmdebstrap, err := exec.LookPath("mmdebstrap")
	if err != nil {
		return nil, &Error{errors.New("mmdebstrap is not installed, which builds images from Debian's packages"), "apt-get install mmdebstrap; elsewhere torno image build --from ROOTFS.tar"}
	}
	release, err := s.hold(ctx, b.Name)
	if err != nil {
		return nil, err
	}
	defer release()
	if image, err := s.Open(b.Name); b.Missing && err == nil {
		return image, nil
	}
	if b.Lock == "" {
		b.Lock = s.LockPath(b.Name)
	}
	lock, err := s.lockFor(ctx, b)
	if err != nil {
		return nil, err
	}
	repository, err := s.repository(ctx, lock, b.Report)
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(repository)
	image, err := s.bootstrap(ctx, mmdebstrap, b, lock, repository)
	if err != nil {
		return nil, errors.Join(ctx.Err(), err)
	}
	for _, p := range lock.Packages {
		image.Packages = append(image.Packages, Package{Name: p.Name, Version: p.Version})
	}
	return image, image.publish(s)
}

// bootstrap has mmdebstrap install the lock's packages from a repository that holds nothing else.
func (s Store) bootstrap(ctx context.Context, mmdebstrap string, b Build, lock *Lock, repository string) (*Image, error) {
	var names []string
	for _, p := range lock.Packages {
		names = append(names, p.Name)
	}
	variant, hook := b.variant()
	args := []string{
		"--variant=" + variant, "--include=" + strings.Join(names, ","), "--aptopt=Acquire::Languages none", "--skip=check/empty",
		"--" + hook + "=upload " + filepath.Join(repository, sourcesFile) + " /etc/apt/sources.list",
	}
	for _, path := range leftOut {
		args = append(args, "--dpkgopt=path-exclude="+path)
	}
	// Without the name of a release, mmdebstrap takes what is essential from any.
	cmd := exec.CommandContext(ctx, mmdebstrap, append(args, "", "-", "deb [trusted=yes] copy:"+repository+" ./")...)
	cmd.Stderr = &steps{out: b.Output, report: b.Report}
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) } // it cleans up after itself
	cmd.WaitDelay = 10 * time.Second
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH="+strconv.FormatInt(lock.Time.Unix(), 10), "LC_ALL=C")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	image, err := s.build(b.Name, "Debian "+lock.Suite, func(f *os.File) error { return disk.FromTar(out, f) })
	if waited := cmd.Wait(); waited != nil && ctx.Err() == nil {
		if image != nil {
			err = errors.Join(err, os.RemoveAll(image.dir))
		}
		err = &Error{errors.Join(fmt.Errorf("mmdebstrap: %w", waited), err), "its output says why"}
	}
	if err != nil {
		return nil, err
	}
	return image, nil
}

// steps takes mmdebstrap's output, whose lines "I: …" say what it is at.
type steps struct {
	out    io.Writer
	report apt.Report
}

func (s *steps) Write(p []byte) (int, error) {
	for line := range strings.Lines(string(p)) {
		if step, ok := strings.CutPrefix(strings.TrimSpace(line), "I: "); ok && strings.HasSuffix(step, "...") {
			s.report(strings.TrimSuffix(step, "..."), 0, 0)
		}
	}
	return s.out.Write(p)
}

// suite returns this machine's release of Debian, or the one that images are tested with.
func suite() (string, error) {
	b, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "", &Error{errors.New("this machine's release is unknown"), "torno image build --from ROOTFS.tar"}
	}
	id, codename := "", ""
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "ID="); ok {
			id = strings.Trim(v, `"`)
		}
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "VERSION_CODENAME="); ok {
			codename = strings.Trim(v, `"`)
		}
	}
	if (id != "debian" && id != "ubuntu") || codename == "" {
		return "", &Error{fmt.Errorf("this machine runs %q, whose packages make no image", id), "torno image build --from ROOTFS.tar"}
	}
	return codename, nil
}

// build makes an image in a directory without its final name, of what write writes.
func (s Store) build(name, source string, write func(f *os.File) error) (*Image, error) {
	dir, err := os.MkdirTemp(s.Dir, unfinished(name))
	if err != nil {
		return nil, err
	}
	image := &Image{Name: name, Source: source, Arch: runtime.GOARCH, Filesystem: "ext4", Created: time.Now().UTC(), dir: dir}
	if err := errors.Join(os.Chmod(dir, 0o755), image.write(write)); err != nil {
		return nil, explain(errors.Join(err, os.RemoveAll(dir)))
	}
	return image, nil
}

// explain adds what helps against a full disk.
func explain(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return &Error{err, "free space there, or set TORNO_IMAGES to a directory on a larger disk; temporary files are in $TMPDIR, by default /var/tmp"}
	}
	return err
}

// write writes the file system.
func (i *Image) write(write func(f *os.File) error) error {
	f, err := os.OpenFile(i.Path(), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := write(f); err != nil {
		return err
	}
	if i.Size, err = f.Seek(0, io.SeekEnd); err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return err
	}
	i.SHA256 = hex.EncodeToString(sum.Sum(nil))
	return f.Sync()
}

// publish writes the description and gives an image its name, in the place of one that had it. Whenever it is
// interrupted, there is the old one or the new, whole.
func (i *Image) publish(s Store) error {
	b, err := json.MarshalIndent(i, "", "\t")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(i.dir, descriptionFile), b, 0o644); err != nil {
		return explain(err)
	}
	final := filepath.Join(s.Dir, i.Name)
	err = unix.Renameat2(unix.AT_FDCWD, i.dir, unix.AT_FDCWD, final, unix.RENAME_EXCHANGE)
	old := i.dir // a VM that runs from it keeps the file open
	if errors.Is(err, unix.ENOENT) {
		err, old = os.Rename(i.dir, final), ""
	}
	if err != nil {
		return err
	}
	i.dir = final
	if old == "" {
		return nil
	}
	return os.RemoveAll(old)
}
