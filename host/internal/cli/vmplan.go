package cli

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"torno.internal/host/internal/vmconfig"
	"torno.internal/host/internal/vmm"
	"torno.internal/images/rootfs"
	"torno.internal/protocol"
)

// plan says what machine it is, and gets what it boots from.
func (v *vmRequest) plan(cmd *cobra.Command) (*vmconfig.Machine, error) {
	m := &vmconfig.Machine{CPUs: v.machine.cpus, Socket: cmp.Or(v.vmmSocket, v.socket), Words: []string{"torno.broker=vsock://2:" + strconv.Itoa(protocol.BrokerPort)}}
	var err error
	if m.Memory, err = parseSize("--memory", v.machine.memory); err != nil {
		return nil, err
	}
	if v.wait {
		m.Words = append(m.Words, "torno.wait")
	}
	if m.Root.Path, err = v.findRoot(cmd); err != nil {
		return nil, err
	}
	if v.init != "" || v.attach {
		return m, v.addOwnKernel(m)
	}
	return m, v.addKernel(cmd, m)
}

// addOwnKernel makes m boot a kernel of the user's, which mounts the root and starts its init itself.
func (v *vmRequest) addOwnKernel(m *vmconfig.Machine) (err error) {
	m.Words = append(m.Words, "root=/dev/vda", "rw")
	if v.init != "" {
		m.Words = append(m.Words, "init="+v.init)
	}
	if m.Kernel, err = existing(v.machine.kernel); err == nil && v.initrdFile != "" {
		m.Initrd, err = existing(v.initrdFile)
	}
	return err
}

// addKernel makes m boot torno's kernel, with the guest as its init.
func (v *vmRequest) addKernel(cmd *cobra.Command, m *vmconfig.Machine) error {
	m.Root.ReadOnly = true
	m.Words = append(m.Words, "torno.root=vda")
	place, err := rootfs.Place()
	if err != nil {
		return err
	}
	k, err := v.findKernel(cmd.Context(), place)
	if err != nil {
		return err
	}
	m.Kernel = k.Path()
	if v.vmm == cloudHypervisor {
		v.machine.kind = string(vmm.Q35) // its devices are on PCI as well
	}
	initrd, err := v.initrd(k, nil)
	if err != nil {
		return err
	}
	m.Initrd, err = keepInitrd(place, initrd)
	return err
}

// findRoot returns the file of the VM's root file system.
func (v *vmRequest) findRoot(cmd *cobra.Command) (string, error) {
	if v.rootfs != "" {
		return existing(v.rootfs)
	}
	place, err := rootfs.Place()
	if err != nil {
		return "", err
	}
	image, err := openImage(cmd.Context(), rootfs.Store{Dir: place}, v.machine.image)
	if err != nil {
		return "", err
	}
	return image.Path(), nil
}

// existing returns the absolute path of a regular file.
func existing(path string) (string, error) {
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%q is not a file", path)
	}
	if err != nil {
		return "", err
	}
	return filepath.Abs(path)
}

// keepInitrd keeps an initial file system under its hash, for as many VMs as boot from it. There is nothing
// secret in one.
func keepInitrd(place string, b []byte) (string, error) {
	sum := sha256.Sum256(b)
	dir := filepath.Join(place, ".initrds")
	path := filepath.Join(dir, hex.EncodeToString(sum[:16])+".img")
	if info, err := os.Stat(path); err == nil && info.Size() == int64(len(b)) {
		return path, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	f, err := os.CreateTemp(dir, ".new-*")
	if err != nil {
		return "", err
	}
	defer os.Remove(f.Name()) // fails once it is renamed
	_, err = f.Write(b)
	if err = errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
		return "", err
	}
	return path, os.Rename(f.Name(), path)
}
