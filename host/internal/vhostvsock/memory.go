package vhostvsock

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Limits of a guest's memory.
const (
	maxRegions = 8
	maxMemory  = 1 << 42 // bytes
)

// A region is a piece of guest-physical memory.
type region struct {
	guest  uint64 // guest-physical address
	size   uint64 // bytes
	user   uint64 // where QEMU has it, which is how it names the rings
	offset uint64 // in the memfd
}

// A memory is all of a guest's memory, mapped. All regions lie in one memfd, whose size can't shrink: an
// access never faults.
type memory struct {
	fd      int
	data    []byte // the memfd from 0 on
	regions []region
}

// mapMemory maps regions of the memfd that every one of files is. It takes the files over.
func mapMemory(regions []region, files []*os.File) (*memory, error) {
	defer closeAll(files)
	if len(regions) == 0 || len(regions) > maxRegions || len(files) != len(regions) {
		return nil, fmt.Errorf("memory table of %d regions and %d files", len(regions), len(files))
	}
	size, err := sameMemfd(files)
	if err != nil {
		return nil, err
	}
	for i, r := range regions {
		if r.size == 0 || r.size > maxMemory || r.offset > size || size-r.offset < r.size ||
			r.guest+r.size < r.guest || r.user+r.size < r.user {
			return nil, fmt.Errorf("region of %#x bytes at %#x does not lie in a memory of %#x", r.size, r.offset, size)
		}
		for _, other := range regions[:i] {
			if r.guest < other.guest+other.size && other.guest < r.guest+r.size {
				return nil, fmt.Errorf("regions at %#x and %#x overlap", r.guest, other.guest)
			}
		}
	}
	fd, err := unix.FcntlInt(files[0].Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	data, err := unix.Mmap(fd, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("mapping the guest's memory: %w", err)
	}
	// A core file of ours must not hold what is the guest's.
	if err := unix.Madvise(data, unix.MADV_DONTDUMP); err != nil {
		return nil, errors.Join(err, unix.Munmap(data), unix.Close(fd))
	}
	return &memory{fd, data, regions}, nil
}

// sameMemfd checks that files are one memfd that can't shrink, and returns its size.
func sameMemfd(files []*os.File) (uint64, error) {
	var first, stat unix.Stat_t
	for i, f := range files {
		if err := unix.Fstat(int(f.Fd()), &stat); err != nil {
			return 0, err
		}
		if i == 0 {
			first = stat
		}
		if stat.Dev != first.Dev || stat.Ino != first.Ino {
			return 0, errors.New("the guest's memory lies in more than one file")
		}
	}
	seals, err := unix.FcntlInt(files[0].Fd(), unix.F_GET_SEALS, 0)
	if err != nil {
		return 0, fmt.Errorf("the guest's memory is no memfd: %w", err)
	}
	if seals&unix.F_SEAL_SHRINK == 0 {
		return 0, errors.New("the guest's memory is not sealed against shrinking")
	}
	if first.Size <= 0 || first.Size > maxMemory {
		return 0, fmt.Errorf("guest memory of %d bytes", first.Size)
	}
	return uint64(first.Size), nil
}

// guest returns n bytes at a guest-physical address, or nil if they do not lie in one region.
func (m *memory) guest(addr, n uint64) []byte {
	for i := range m.regions {
		r := &m.regions[i]
		if addr >= r.guest && addr-r.guest < r.size && r.size-(addr-r.guest) >= n {
			at := r.offset + addr - r.guest
			return m.data[at : at+n : at+n]
		}
	}
	return nil
}

// user returns n bytes at an address of QEMU's.
func (m *memory) user(addr, n uint64) []byte {
	for i := range m.regions {
		r := &m.regions[i]
		if addr >= r.user && addr-r.user < r.size && r.size-(addr-r.user) >= n {
			at := r.offset + addr - r.user
			return m.data[at : at+n : at+n]
		}
	}
	return nil
}

func (m *memory) close() {
	if m != nil {
		_ = unix.Munmap(m.data)
		_ = unix.Close(m.fd)
	}
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
