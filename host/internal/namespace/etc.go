package namespace

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Bounds of the copy of /etc. Larger files than maxEtcFile are left out; more of them, or deeper, is no
// /etc that anybody wants copied for each run.
const (
	maxEtcFiles = 20_000
	maxEtcBytes = 128 << 20 // all together
	maxEtcFile  = 8 << 20
	maxEtcDepth = 16
)

// etcSecrets are left out even where they can be read: what proves who the host is, or lets people in.
// Patterns are matched against the path below /etc, segment by segment (path.Match), and cover what is
// below them.
var etcSecrets = []string{
	".git", "NetworkManager/system-connections", "credstore*", "docker", "gshadow*", "ipsec.secrets", "kubernetes",
	"letsencrypt", "machine-id", "openvpn", "pki/tls/private", "security/opasswd", "shadow*", "ssh/*key*", "ssl/private",
	"sudoers", "sudoers.d", "swanctl", "torno", "wireguard", "wpa_supplicant", "*.keytab", "*/*.key",
}

// openEtc opens the host's /etc before the root changes.
func openEtc() (*os.Root, error) { return os.OpenRoot("/etc") }

// copyEtc copies what can be read of etc to target, which exists. Links are kept; everything else that
// is no file or directory is left out, as is what vanishes on the way.
func copyEtc(etc *os.Root, target string) error {
	defer etc.Close()
	c := etcCopy{from: etc, to: target}
	return fs.WalkDir(etc.FS(), ".", c.visit)
}

type etcCopy struct {
	from  *os.Root
	to    string
	files int
	bytes int64
}

func (c *etcCopy) visit(name string, d fs.DirEntry, err error) error {
	if err != nil {
		if d != nil && d.IsDir() {
			return fs.SkipDir // unreadable
		}
		return nil
	}
	if name == "." {
		return nil
	}
	if isEtcSecret(name) {
		if d.IsDir() {
			return fs.SkipDir
		}
		return nil
	}
	if c.files++; c.files > maxEtcFiles || c.bytes > maxEtcBytes {
		return hinted("torno run needs an /etc that it can copy", fmt.Errorf("/etc has more than %d files or %d MiB", maxEtcFiles, maxEtcBytes>>20))
	}
	target := filepath.Join(c.to, name)
	switch d.Type() {
	case fs.ModeDir:
		if depth(name) > maxEtcDepth {
			return fs.SkipDir
		}
		return os.Mkdir(target, 0o755)
	case fs.ModeSymlink:
		to, err := c.from.Readlink(name)
		if err != nil {
			return nil
		}
		return os.Symlink(to, target)
	case 0:
		return c.file(name, target)
	}
	return nil
}

func (c *etcCopy) file(name, target string) error {
	in, err := c.from.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Size() > maxEtcFile {
		return nil
	}
	out, err := os.OpenFile(target, os.O_WRONLY|os.O_CREATE|os.O_EXCL, info.Mode().Perm()|0o400)
	if err != nil {
		return err
	}
	defer out.Close()
	n, err := io.Copy(out, io.LimitReader(in, maxEtcFile))
	c.bytes += n
	return err
}

// isEtcSecret reports whether name, below /etc, is or lies in one of etcSecrets.
func isEtcSecret(name string) bool {
	for _, pattern := range etcSecrets {
		if ok, _ := path.Match(pattern, name); ok { // what is below a match is never visited
			return true
		}
	}
	return false
}

func depth(name string) int {
	n := 1
	for i := range len(name) {
		if name[i] == '/' {
			n++
		}
	}
	return n
}
