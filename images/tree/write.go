package tree

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
)

// ErrChanged means that a layer held something else when it was read again.
var ErrChanged = errors.New("changed while it was read")

// WriteTar writes the file system as one archive: the same layers give the same bytes. Directories come before
// what is in them, then files, in the order in which their layers have them.
func (t *Tree) WriteTar(w io.Writer) error {
	out := &writer{
		Writer: tar.NewWriter(w), first: map[*inode]string{}, content: make([]map[int]file, len(t.layers)),
	}
	if err := out.walk(".", t.root); err != nil {
		return err
	}
	for i, open := range t.layers {
		if err := out.layer(i, open); err != nil {
			return fmt.Errorf("layer %d of %d: %w", i+1, len(t.layers), err)
		}
	}
	for _, l := range out.links {
		if err := out.WriteHeader(&l); err != nil {
			return err
		}
	}
	return out.Close()
}

// A writer writes a tree in three parts: what has no content, what has, and further names of what was written.
type writer struct {
	*tar.Writer
	first   map[*inode]string // the name that each inode is written under
	content []map[int]file    // what has content, by layer and entry
	links   []tar.Header
}

// A file is an inode with content, and the name that it is written under.
type file struct {
	*inode
	name string
}

// walk writes what has no content, and notes what has.
func (w *writer) walk(name string, n *node) error {
	if n.isDir() {
		return w.directory(name, n)
	}
	if first, ok := w.first[n.inode]; ok {
		w.links = append(w.links, tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: first, Format: tar.FormatPAX})
		return nil
	}
	w.first[n.inode] = name
	if n.kind != tar.TypeReg {
		return w.WriteHeader(n.header(name))
	}
	of := &w.content[n.inode.layer]
	if *of == nil {
		*of = map[int]file{}
	}
	(*of)[n.entry] = file{n.inode, name}
	return nil
}

func (w *writer) directory(name string, n *node) error {
	if err := w.WriteHeader(n.header(name)); err != nil {
		return err
	}
	for _, child := range slices.Sorted(maps.Keys(n.children)) {
		if err := w.walk(path.Join(name, child), n.children[child]); err != nil {
			return err
		}
	}
	return nil
}

// layer copies from a layer what was noted of it.
func (w *writer) layer(i int, open Layer) error {
	left := len(w.content[i])
	if left == 0 {
		return nil
	}
	err := entries(open, func(entry int, h *tar.Header, content io.Reader) error {
		f, ok := w.content[i][entry]
		if !ok {
			return nil
		}
		left--
		if kinds[h.Typeflag] != tar.TypeReg || h.Size != f.size {
			return ErrChanged
		}
		if err := w.WriteHeader(f.header(f.name)); err != nil {
			return err
		}
		_, err := io.Copy(w, content)
		return err
	})
	if err == nil && left > 0 {
		err = ErrChanged
	}
	return err
}
