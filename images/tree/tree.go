// Package tree puts root file systems together from archives that lie over one another, as container images
// have them (OCI image specification, layer.md). It touches no file system: names in an archive lead
// nowhere but into the tree.
package tree

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"
)

// Bounds of what archives may make of a tree.
const (
	MaxEntries = 1 << 20  // entries of all archives together
	MaxContent = 64 << 30 // bytes of all files together
	maxName    = 255      // bytes of a name, as Linux has it
	maxPath    = 4095     // bytes of a path, and of a link's target
	maxDepth   = 256      // directories in one another
	maxLinks   = 40       // symbolic links on the way to a name, as Linux has it
	maxXattrs  = 2 << 10  // bytes of an entry's extended attributes: what fits beside an ext4 inode
)

var (
	// ErrName means that an archive names what no file can be called.
	ErrName = errors.New("bad name")
	// ErrTooLarge means that archives hold more than a tree may.
	ErrTooLarge = errors.New("too large")
	// ErrFormat means that an archive makes no sense.
	ErrFormat = errors.New("malformed archive")
)

// A Layer opens an archive, uncompressed. It is opened twice, and must hold the same bytes both times.
type Layer func() (io.ReadCloser, error)

// A Tree is a root file system whose content is still in its layers.
type Tree struct {
	root    *node
	layers  []Layer
	entries int
	content int64
}

// An inode is what one or more names stand for.
type inode struct {
	kind         byte // of package tar
	mode         int64
	uid, gid     int
	mtime        time.Time
	target       string // of a symbolic link
	major, minor int64
	size         int64
	xattrs       map[string]string // with tar's prefix
	layer, entry int               // where its content is
}

// A node is a name.
type node struct {
	*inode
	layer    int // that mentioned it last
	children map[string]*node
}

func newDirectory(layer int) *node {
	return &node{inode: &inode{kind: tar.TypeDir, mode: 0o755}, layer: layer, children: map[string]*node{}}
}

func (n *node) isDir() bool { return n.kind == tar.TypeDir }

// Merge reads layers, the lowest first.
func Merge(layers ...Layer) (*Tree, error) {
	t := &Tree{root: newDirectory(0), layers: layers}
	for i, l := range layers {
		if err := t.read(i, l); err != nil {
			return nil, fmt.Errorf("layer %d of %d: %w", i+1, len(layers), err)
		}
	}
	return t, nil
}

// read applies one layer.
func (t *Tree) read(layer int, open Layer) error {
	return entries(open, func(entry int, h *tar.Header, _ io.Reader) error {
		if t.entries++; t.entries > MaxEntries {
			return fmt.Errorf("%w: more than %d entries", ErrTooLarge, MaxEntries)
		}
		if err := t.apply(layer, entry, h); err != nil {
			return fmt.Errorf("entry %q: %w", clip(h.Name), err)
		}
		return nil
	})
}

// entries calls f for each entry of an archive, and has all of it read, so that who verifies it can.
func entries(open Layer, f func(entry int, h *tar.Header, content io.Reader) error) (err error) {
	r, err := open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	for t, entry := tar.NewReader(r), 0; ; entry++ {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			_, err = io.Copy(io.Discard, r)
			return err
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrFormat, err)
		}
		if err := f(entry, h, t); err != nil {
			return err
		}
	}
}

// Whiteouts are names that say what of lower layers is gone.
const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq" // all that the directory had
	reserved = ".wh..wh."     // others of AUFS's own, which mean nothing to us
)

func isReserved(name string) bool { return strings.HasPrefix(name, reserved) }

// apply does what one entry says.
func (t *Tree) apply(layer, entry int, h *tar.Header) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	parts, err := split(h.Name)
	if err != nil {
		return err
	}
	if len(parts) == 0 {
		if h.Typeflag != tar.TypeDir {
			return fmt.Errorf("%w: the root is no directory", ErrFormat)
		}
		made, err := inodeOf(entry, layer, h)
		if err == nil {
			t.root.inode, t.root.layer = made, layer
		}
		return err
	}
	above, name := parts[:len(parts)-1], parts[len(parts)-1]
	if slices.ContainsFunc(above, isReserved) {
		return nil
	}
	dir, err := t.directory(above, layer)
	if err != nil {
		return err
	}
	if hidden, ok := strings.CutPrefix(name, whiteout); ok {
		return dir.hide(name, hidden, layer)
	}
	if h.Typeflag == tar.TypeLink {
		return t.link(dir, name, h.Linkname, layer)
	}
	made, err := inodeOf(entry, layer, h)
	if err != nil {
		return err
	}
	if t.content += made.size; t.content > MaxContent {
		return fmt.Errorf("%w: more than %d bytes", ErrTooLarge, int64(MaxContent))
	}
	dir.put(name, made, layer)
	return nil
}

// put gives name to an inode. A directory that takes a directory's place keeps what is in it.
func (n *node) put(name string, i *inode, layer int) {
	made := &node{inode: i, layer: layer}
	if made.isDir() {
		made.children = map[string]*node{}
		if old := n.children[name]; old != nil && old.isDir() {
			made.children = old.children
		}
	}
	n.children[name] = made
}

// link gives name to what target, a path in the tree, stands for.
func (t *Tree) link(dir *node, name, target string, layer int) error {
	parts, err := split(target)
	if err != nil || len(parts) == 0 {
		return fmt.Errorf("link to %q: %w", clip(target), ErrName)
	}
	from, err := t.directory(parts[:len(parts)-1], layer)
	if err != nil {
		return err
	}
	old := from.children[parts[len(parts)-1]]
	if old == nil || old.isDir() {
		return fmt.Errorf("%w: links to %q, which is no file", ErrFormat, clip(target))
	}
	dir.put(name, old.inode, layer)
	return nil
}

// hide applies a whiteout, which concerns lower layers alone.
func (n *node) hide(name, hidden string, layer int) error {
	switch {
	case name == opaque:
		for child, c := range n.children {
			if !c.keep(layer) {
				delete(n.children, child)
			}
		}
	case isReserved(name):
	case hidden == "" || hidden == "." || hidden == "..":
		return fmt.Errorf("%w: a whiteout of %q", ErrName, hidden)
	default:
		if c := n.children[hidden]; c != nil && !c.keep(layer) {
			delete(n.children, hidden)
		}
	}
	return nil
}

// keep removes what layers below layer made of n, and reports whether anything is left.
func (n *node) keep(layer int) bool {
	for name, c := range n.children {
		if !c.keep(layer) {
			delete(n.children, name)
		}
	}
	return n.layer >= layer || len(n.children) > 0
}

// directory returns the directory of that path, whose missing parts it makes. Symbolic links on the way are
// followed, as they are inside a root directory that cannot be left.
func (t *Tree) directory(parts []string, layer int) (*node, error) {
	at := []*node{t.root}
	todo := slices.Clone(parts)
	for links := 0; len(todo) > 0; {
		name := todo[0]
		todo = todo[1:]
		if name == ".." { // a link's
			at = at[:max(1, len(at)-1)]
			continue
		}
		dir := at[len(at)-1]
		child := dir.children[name]
		switch {
		case child == nil:
			if strings.HasPrefix(name, whiteout) {
				return nil, fmt.Errorf("%w: %q is for whiteouts", ErrName, clip(name))
			}
			if len(at) == maxDepth {
				return nil, fmt.Errorf("%w: more than %d directories in one another", ErrTooLarge, maxDepth)
			}
			if t.entries++; t.entries > MaxEntries {
				return nil, fmt.Errorf("%w: more than %d entries", ErrTooLarge, MaxEntries)
			}
			child = newDirectory(layer)
			dir.children[name] = child
			at = append(at, child)
		case child.isDir():
			at = append(at, child)
		case child.kind == tar.TypeSymlink:
			if links++; links > maxLinks {
				return nil, fmt.Errorf("%w: more than %d symbolic links on the way", ErrFormat, maxLinks)
			}
			if path.IsAbs(child.target) {
				at = at[:1]
			}
			todo = append(components(child.target), todo...)
		default:
			return nil, fmt.Errorf("%w: %q is no directory", ErrFormat, clip(name))
		}
	}
	return at[len(at)-1], nil
}
