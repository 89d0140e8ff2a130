package main

import (
	"context"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// A node is a file or a directory.
type node struct {
	fs.LoopbackNode
	f *faults
}

// A file is one that is open. What it does not do itself the one inside does.
type file struct {
	*fs.LoopbackFile
	f *faults
}

// wrap makes a file of what was opened.
func (n *node) wrap(fh fs.FileHandle) fs.FileHandle {
	if inner, ok := fh.(*fs.LoopbackFile); ok {
		return &file{inner, n.f}
	}
	return fh
}

const writes = syscall.O_WRONLY | syscall.O_RDWR | syscall.O_TRUNC

// Open fails on a disk that can only be read, as the kernel does there.
func (n *node) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	if e := n.f.writing(); e == syscall.EROFS && flags&writes != 0 {
		return nil, 0, e
	}
	fh, out, errno := n.LoopbackNode.Open(ctx, flags)
	return n.wrap(fh), out, errno
}

func (n *node) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	if e := n.f.writing(); e != 0 {
		return nil, nil, 0, e
	}
	inode, fh, more, errno := n.LoopbackNode.Create(ctx, name, flags, mode, out)
	return inode, n.wrap(fh), more, errno
}

func (n *node) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if e := n.f.writing(); e != 0 {
		return nil, e
	}
	return n.LoopbackNode.Mkdir(ctx, name, mode, out)
}

// Unlink gives room back, so it works on a full disk.
func (n *node) Unlink(ctx context.Context, name string) syscall.Errno {
	if e := n.f.writing(); e != 0 && e != syscall.ENOSPC {
		return e
	}
	return n.LoopbackNode.Unlink(ctx, name)
}

func (n *node) Rename(ctx context.Context, name string, to fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	if e := n.f.writing(); e != 0 && e != syscall.ENOSPC {
		return e
	}
	return n.LoopbackNode.Rename(ctx, name, to, newName, flags)
}

func (n *node) Setattr(ctx context.Context, fh fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if e := n.f.writing(); e != 0 && in.Valid&fuse.FATTR_SIZE != 0 {
		return e
	}
	if inner, ok := fh.(*file); ok {
		fh = inner.LoopbackFile
	}
	return n.LoopbackNode.Setattr(ctx, fh, in, out)
}

func (n *node) Getattr(ctx context.Context, fh fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	if inner, ok := fh.(*file); ok {
		fh = inner.LoopbackFile
	}
	return n.LoopbackNode.Getattr(ctx, fh, out)
}

// PassthroughFd keeps the kernel from going past us.
func (f *file) PassthroughFd() (int, bool) { return 0, false }

func (f *file) Write(ctx context.Context, data []byte, off int64) (uint32, syscall.Errno) {
	if e := f.f.writing(); e != 0 {
		return 0, e
	}
	return f.LoopbackFile.Write(ctx, data, off)
}

func (f *file) Writev(ctx context.Context, data [][]byte, off int64) (uint32, syscall.Errno) {
	if e := f.f.writing(); e != 0 {
		return 0, e
	}
	return f.LoopbackFile.Writev(ctx, data, off)
}

func (f *file) Allocate(ctx context.Context, off, size uint64, mode uint32) syscall.Errno {
	if e := f.f.writing(); e != 0 {
		return e
	}
	return f.LoopbackFile.Allocate(ctx, off, size, mode)
}

func (f *file) Fsync(ctx context.Context, flags uint32) syscall.Errno {
	if e := f.f.syncing(); e != 0 {
		return e
	}
	return f.LoopbackFile.Fsync(ctx, flags)
}
