// Command slowfs mounts a directory at another place as a disk that can be made slow, full, broken or read-only while it is
// in use. It is for tests: what a broker does on such a disk is tried with real system calls.
//
//	slowfs DIRECTORY PLACE
//
// It says "mounted", then does what it is told on standard input, one line at a time, and answers "ok" to each:
//
//	delay DURATION   every fsync takes so much longer
//	sync ERRNO       every fsync fails: EIO, ENOSPC, EROFS; none: it does not
//	write ERRNO      whatever would write fails, and fsync goes on
//	count            answers how often fsync was asked for, instead of "ok"
//
// The end of standard input unmounts.
package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	if len(args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: slowfs DIRECTORY PLACE")
		return 2
	}
	f := &faults{}
	root, err := newRoot(args[0], f)
	if err == nil {
		err = serve(root, args[1], f)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "slowfs:", err)
		return 1
	}
	return 0
}

func newRoot(dir string, f *faults) (fs.InodeEmbedder, error) {
	var st syscall.Stat_t
	if err := syscall.Stat(dir, &st); err != nil {
		return nil, fmt.Errorf("%q: %w", dir, err)
	}
	root := &fs.LoopbackRoot{Path: dir, Dev: st.Dev}
	root.NewNode = func(root *fs.LoopbackRoot, _ *fs.Inode, _ string, _ *syscall.Stat_t) fs.InodeEmbedder {
		return &node{fs.LoopbackNode{RootData: root}, f}
	}
	n := &node{fs.LoopbackNode{RootData: root}, f}
	root.RootNode = n
	return n, nil
}

// serve mounts root and does what standard input says.
func serve(root fs.InodeEmbedder, place string, f *faults) error {
	none := time.Duration(0) // nothing is remembered: what is there may change
	server, err := fs.Mount(place, root, &fs.Options{
		EntryTimeout: &none, AttrTimeout: &none,
		MountOptions: fuse.MountOptions{DirectMountStrict: true, FsName: "slowfs", Name: "slowfs"},
	})
	if err != nil {
		return err
	}
	fmt.Println("mounted")
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		answer, err := f.tell(strings.Fields(lines.Text()))
		if err != nil {
			answer = err.Error()
		}
		fmt.Println(answer)
	}
	f.heal() // nothing waits any more
	if err := server.Unmount(); err != nil {
		return syscall.Unmount(place, syscall.MNT_DETACH)
	}
	return nil
}

// Faults are what the disk does wrong now.
type faults struct {
	delay       atomic.Int64 // nanoseconds
	sync, write atomic.Uint32
	syncs       atomic.Int64
}

var errnos = map[string]syscall.Errno{"none": 0, "EIO": syscall.EIO, "ENOSPC": syscall.ENOSPC, "EROFS": syscall.EROFS}

func (f *faults) tell(words []string) (string, error) {
	if len(words) == 1 && words[0] == "count" {
		return fmt.Sprint(f.syncs.Load()), nil
	}
	if len(words) != 2 {
		return "", fmt.Errorf("%q: no such command", words)
	}
	errno, known := errnos[words[1]]
	switch what := words[0]; {
	case what == "delay":
		d, err := time.ParseDuration(words[1])
		if err != nil {
			return "", err
		}
		f.delay.Store(int64(d))
	case what == "sync" && known:
		f.sync.Store(uint32(errno))
	case what == "write" && known:
		f.write.Store(uint32(errno))
	default:
		return "", fmt.Errorf("%q: no such command", words)
	}
	return "ok", nil
}

func (f *faults) heal() {
	f.delay.Store(0)
	f.sync.Store(0)
	f.write.Store(0)
}

// writing is what a write fails with; 0: it does not.
func (f *faults) writing() syscall.Errno { return syscall.Errno(f.write.Load()) }

// syncing waits as long as an fsync takes, and is what it fails with.
func (f *faults) syncing() syscall.Errno {
	f.syncs.Add(1)
	for end := time.Now(); time.Since(end) < time.Duration(f.delay.Load()); { // which may become shorter meanwhile
		time.Sleep(time.Millisecond)
	}
	return syscall.Errno(f.sync.Load())
}
