// Package vmconfig writes what other VMMs read: the configuration of a VM whose guest reaches the broker. Their
// vsock devices stand at a Unix socket BASE; a connection of the guest to port P of the host arrives at BASE_P,
// where the broker listens for port 618.
package vmconfig

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// guestCID is the CID of every guest: each has a device of its own, so none needs another.
const guestCID = 3

// A Machine is a VM that somebody else starts. Paths are absolute, but the socket's.
type Machine struct {
	Kernel string   // uncompressed: vmlinux
	Initrd string   // empty: none, the kernel mounts the root itself
	Words  []string // of the kernel command line, beside what the VMM's machine needs
	Root   Disk     // becomes /dev/vda
	CPUs   int
	Memory uint64 // bytes, whole MiB
	Socket string // BASE, as the VMM sees it: it may run in a jail, or be relative to its directory
}

// A Disk is a raw image.
type Disk struct {
	Path     string
	ReadOnly bool
}

// Check reports what no VMM could start, or a word that would become several on the command line.
func (m *Machine) Check() error {
	for what, path := range map[string]string{"kernel": m.Kernel, "initrd": m.Initrd, "root": m.Root.Path} {
		if path != "" && (!filepath.IsAbs(path) || filepath.Clean(path) != path) {
			return fmt.Errorf("%s %q is not an absolute path", what, path)
		}
	}
	switch {
	case m.Socket != "" && filepath.Clean(m.Socket) != m.Socket:
		return fmt.Errorf("socket %q is not a plain path", m.Socket)
	case m.Kernel == "" || m.Root.Path == "" || m.Socket == "":
		return errors.New("a machine needs a kernel, a root and a socket")
	case m.CPUs < 1 || m.Memory < 1<<20 || m.Memory%(1<<20) != 0:
		return fmt.Errorf("%d processors and %d bytes of memory", m.CPUs, m.Memory)
	}
	for _, w := range m.Words {
		if w == "" || strings.ContainsFunc(w, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' }) {
			return fmt.Errorf("%q is not one word of a kernel command line", w)
		}
	}
	return nil
}

// maxCommandLine is the longest command line that Linux takes on x86, in bytes (COMMAND_LINE_SIZE).
const maxCommandLine = 2047

// commandLine returns the command line with the VMM's own words first.
func (m *Machine) commandLine(own ...string) (string, error) {
	line := strings.Join(slices.Concat(own, m.Words), " ")
	if len(line) > maxCommandLine {
		return "", fmt.Errorf("kernel command line of %d bytes, at most %d fit", len(line), maxCommandLine)
	}
	return line, nil
}
