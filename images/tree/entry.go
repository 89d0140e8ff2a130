package tree

import (
	"archive/tar"
	"fmt"
	"math"
	"strings"
	"time"
)

// split returns the components of an entry's name, which may begin with "/" or "./" but not lead upwards.
func split(name string) ([]string, error) {
	if len(name) > maxPath || name == "" || strings.ContainsRune(name, 0) {
		return nil, ErrName
	}
	parts := components(name)
	if len(parts) > maxDepth {
		return nil, fmt.Errorf("%w: more than %d directories in one another", ErrTooLarge, maxDepth)
	}
	for _, p := range parts {
		if p == ".." || len(p) > maxName {
			return nil, ErrName
		}
	}
	return parts, nil
}

// components returns the parts of a path that mean something.
func components(name string) []string {
	var parts []string
	for p := range strings.SplitSeq(name, "/") {
		if p != "" && p != "." {
			parts = append(parts, p)
		}
	}
	return parts
}

// kinds are the types of entries that a file system can hold, and what they become.
var kinds = map[byte]byte{
	tar.TypeReg: tar.TypeReg, tar.TypeCont: tar.TypeReg, tar.TypeGNUSparse: tar.TypeReg,
	tar.TypeDir: tar.TypeDir, tar.TypeSymlink: tar.TypeSymlink, tar.TypeFifo: tar.TypeFifo,
	tar.TypeChar: tar.TypeChar, tar.TypeBlock: tar.TypeBlock,
}

// modeBits are the permissions, with those for set-user-ID, set-group-ID and sticky.
const modeBits = 0o7777

// maxTime is the last second that ext4 knows.
const maxTime = 1<<34 - 1<<31 - 1

// inodeOf returns what an entry describes.
func inodeOf(entry, layer int, h *tar.Header) (*inode, error) {
	kind, ok := kinds[h.Typeflag]
	if !ok {
		return nil, fmt.Errorf("%w: type %q", ErrFormat, h.Typeflag)
	}
	i := &inode{
		kind: kind, mode: h.Mode & modeBits, uid: h.Uid, gid: h.Gid, layer: layer, entry: entry,
		mtime: time.Unix(min(max(h.ModTime.Unix(), 0), maxTime), 0),
	}
	if !isUint32(int64(h.Uid)) || !isUint32(int64(h.Gid)) {
		return nil, fmt.Errorf("%w: owner %d:%d", ErrFormat, h.Uid, h.Gid)
	}
	switch kind {
	case tar.TypeReg:
		if i.size = h.Size; i.size < 0 || i.size > MaxContent {
			return nil, fmt.Errorf("%w: %d bytes", ErrTooLarge, h.Size)
		}
	case tar.TypeSymlink:
		if i.target = h.Linkname; i.target == "" || len(i.target) > maxPath || strings.ContainsRune(i.target, 0) {
			return nil, fmt.Errorf("target: %w", ErrName)
		}
	case tar.TypeChar, tar.TypeBlock:
		if i.major, i.minor = h.Devmajor, h.Devminor; !isUint32(i.major) || !isUint32(i.minor) {
			return nil, fmt.Errorf("%w: device %d:%d", ErrFormat, h.Devmajor, h.Devminor)
		}
	}
	return i, i.takeXattrs(h.PAXRecords)
}

func isUint32(n int64) bool { return n >= 0 && n <= math.MaxUint32 }

// xattrPrefix marks extended attributes among an entry's records.
const xattrPrefix = "SCHILY.xattr."

// takeXattrs takes the attributes that mean something in a VM: capabilities of files, and what users put there.
// Those of overlays and security modules speak of the machine that the archive comes from.
func (i *inode) takeXattrs(records map[string]string) error {
	size := 0
	for record, value := range records {
		name, ok := strings.CutPrefix(record, xattrPrefix)
		if !ok || name != "security.capability" && !strings.HasPrefix(name, "user.") {
			continue
		}
		if size += len(name) + len(value); size > maxXattrs || len(name) > maxName {
			return fmt.Errorf("%w: extended attributes", ErrTooLarge)
		}
		if i.xattrs == nil {
			i.xattrs = map[string]string{}
		}
		i.xattrs[record] = value
	}
	return nil
}

// header returns the entry of an archive that makes the inode under a name, which is clean and relative.
func (i *inode) header(name string) *tar.Header {
	h := &tar.Header{
		Typeflag: i.kind, Name: name, Linkname: i.target, Mode: i.mode, Uid: i.uid, Gid: i.gid, Size: i.size, ModTime: i.mtime,
		Devmajor: i.major, Devminor: i.minor, PAXRecords: i.xattrs, Format: tar.FormatPAX,
	}
	if i.kind == tar.TypeDir {
		h.Name += "/"
	}
	return h
}

// clip shortens a hostile string for an error.
func clip(s string) string { return s[:min(len(s), 200)] }
