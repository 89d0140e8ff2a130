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
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"torno.internal/images/disk"
)

// Base is the name of the image that agents get unless told otherwise.
const Base = "base"

// basePackages are what Base holds beside what every Debian has.
var basePackages = []string{
	"ca-certificates", "curl", "git", "iproute2", "less", "nodejs", "openssh-client", "procps", "python3", "python3-requests", "xz-utils",
}

// leftOut are files of packages that nobody reads in a VM.
var leftOut = []string{"/usr/share/man/*", "/usr/share/doc/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/lintian/*"}

// BuildBase builds Base from Debian's packages by mmdebstrap, which needs no container engine and, where
// the kernel lets users have namespaces, no root. Lines of its progress go to progress.
func (s Store) BuildBase(ctx context.Context, name string, progress io.Writer) (*Image, error) {
	mmdebstrap, err := exec.LookPath("mmdebstrap")
	if err != nil {
		return nil, &Error{errors.New("mmdebstrap is not installed, which builds images from Debian's packages"), "apt-get install mmdebstrap; elsewhere torno image build --from ROOTFS.tar"}
	}
	suite, err := suite()
	if err != nil {
		return nil, err
	}
	args := []string{"--variant=minbase", "--include=" + strings.Join(basePackages, ","), "--aptopt=Acquire::Languages none"}
	for _, path := range leftOut {
		args = append(args, "--dpkgopt=path-exclude="+path)
	}
	cmd := exec.CommandContext(ctx, mmdebstrap, append(args, suite, "-")...)
	cmd.Stderr = progress
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) } // it cleans up after itself
	cmd.WaitDelay = 10 * time.Second
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=0", "LC_ALL=C")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	image, err := s.build(name, "Debian "+suite, out)
	if waited := cmd.Wait(); waited != nil && ctx.Err() == nil {
		err = &Error{fmt.Errorf("mmdebstrap: %w", waited), "its output says why; apt-get update may help"}
	}
	if err != nil {
		return nil, errors.Join(ctx.Err(), err)
	}
	return image, image.publish(s)
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

// FromTar makes an image of an archive of a root file system.
func (s Store) FromTar(name, source string, archive io.Reader) (*Image, error) {
	image, err := s.build(name, source, archive)
	if err != nil {
		return nil, err
	}
	return image, image.publish(s)
}

// build makes an image in a directory without its final name.
func (s Store) build(name, source string, archive io.Reader) (*Image, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(s.Dir, ".new-")
	if err != nil {
		return nil, err
	}
	image := &Image{Name: name, Source: source, Arch: runtime.GOARCH, Filesystem: "ext4", Created: time.Now().UTC(), dir: dir}
	if err := errors.Join(os.Chmod(dir, 0o755), image.write(archive)); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return image, nil
}

// write writes the file system and, last, the description.
func (i *Image) write(archive io.Reader) error {
	f, err := os.OpenFile(i.Path(), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := disk.FromTar(archive, f); err != nil {
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
	b, err := json.MarshalIndent(i, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(i.dir, descriptionFile), b, 0o644)
}

// publish gives an image its name, in the place of one that had it.
func (i *Image) publish(s Store) error {
	final := filepath.Join(s.Dir, i.Name)
	old := i.dir + ".old"
	if err := os.Rename(final, old); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Rename(i.dir, final); err != nil {
		return err
	}
	i.dir = final
	return os.RemoveAll(old) // a VM that runs from it keeps the file open
}
