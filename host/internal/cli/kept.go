package cli

import (
	"bufio"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"golang.org/x/sys/unix"

	"torno.internal/host/internal/workspace"
	"torno.internal/images/disk"
	"torno.internal/images/rootfs"
)

// A kept is the disk that a VM's workspace lies on and the record of what went in: from both a later
// process can take back what a run could not. Whoever works with it holds a lock on the disk.
type kept struct {
	id   string
	dir  string // of the two
	disk *os.File
}

// Names in the directory of a kept.
const (
	keptDisk   = "disk"
	keptRecord = "record"
)

// keptPlace returns where they are: beside the images, and apart from the broker's state.
func keptPlace() (string, error) {
	if dir := os.Getenv("TORNO_WORKSPACES"); dir != "" {
		return filepath.Abs(dir)
	}
	images, err := rootfs.Place()
	return filepath.Join(filepath.Dir(images), "workspaces"), err
}

// newKept makes one with an empty disk of size bytes.
func newKept(size int64) (*kept, error) {
	place, err := keptPlace()
	if err != nil {
		return nil, err
	}
	random := make([]byte, 3)
	rand.Read(random)
	id := time.Now().Format("20060102-150405-") + hex.EncodeToString(random)
	k := &kept{id: id, dir: filepath.Join(place, id)}
	if err := os.MkdirAll(place, 0o700); err != nil {
		return nil, err
	}
	if err := os.Mkdir(k.dir, 0o700); err != nil {
		return nil, err
	}
	k.disk, err = os.OpenFile(filepath.Join(k.dir, keptDisk), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err == nil {
		err = k.lock()
	}
	if err == nil {
		err = disk.Format(k.disk, size, true)
	}
	if err != nil {
		k.remove()
		return nil, err
	}
	return k, nil
}

var errBusy = errors.New("a run is still working with it")

func (k *kept) lock() error {
	err := unix.Flock(int(k.disk.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return errBusy
	}
	return err
}

// save records what went in. From then on there is something to take back.
func (k *kept) save(w *workspace.Workspace) error {
	path := filepath.Join(k.dir, keptRecord)
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	buffered := bufio.NewWriter(f)
	if err := errors.Join(w.Save(buffered), buffered.Flush()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// load opens the workspace that was saved.
func (k *kept) load() (*workspace.Workspace, error) {
	f, err := os.Open(filepath.Join(k.dir, keptRecord))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return workspace.Load(bufio.NewReader(f))
}

// close lets go of it, and leaves it where it is.
func (k *kept) close() {
	if k.disk != nil {
		k.disk.Close()
	}
}

// remove removes it for ever.
func (k *kept) remove() {
	k.close()
	_ = os.RemoveAll(k.dir)
}

var validKept = regexp.MustCompile(`^[0-9]{8}-[0-9]{6}-[0-9a-f]{6}$`)

// openKept opens one that an earlier run has left. The error is errBusy if it goes on.
func openKept(id string) (*kept, error) {
	place, err := keptPlace()
	if err != nil {
		return nil, err
	}
	k := &kept{id: id, dir: filepath.Join(place, id)}
	if !validKept.MatchString(id) {
		return nil, noKept(id)
	}
	k.disk, err = os.OpenFile(filepath.Join(k.dir, keptDisk), os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil, noKept(id)
	}
	if err == nil {
		err = k.lock()
	}
	if err != nil {
		k.close()
		return nil, err
	}
	return k, nil
}

func noKept(id string) error {
	return &hintError{fmt.Errorf("no workspace %q is kept", id), "torno workspace list"}
}

// A keptInfo is what there is to say of a kept one.
type keptInfo struct {
	ID        string    `json:"id"`
	Directory string    `json:"directory"`
	Since     time.Time `json:"since"`
	Bytes     int64     `json:"bytes"` // that its disk takes up
}

// listKept lists those of runs that have ended. What a run has left before its command began is removed.
func listKept() ([]keptInfo, error) {
	place, err := keptPlace()
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(place)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	all := []keptInfo{}
	for _, e := range entries {
		k, err := openKept(e.Name())
		if err != nil {
			continue // not ours, or of a run that goes on
		}
		info, err := k.info()
		if errors.Is(err, os.ErrNotExist) {
			k.remove()
			continue
		}
		k.close()
		if err != nil {
			return nil, err
		}
		all = append(all, info)
	}
	return all, nil
}

func (k *kept) info() (keptInfo, error) {
	f, err := os.Open(filepath.Join(k.dir, keptRecord))
	if err != nil {
		return keptInfo{}, err
	}
	defer f.Close()
	directory, err := workspace.SavedDir(bufio.NewReader(f))
	if err != nil {
		return keptInfo{}, err
	}
	var stat unix.Stat_t
	if err := unix.Fstat(int(k.disk.Fd()), &stat); err != nil {
		return keptInfo{}, err
	}
	return keptInfo{k.id, directory, time.Unix(stat.Mtim.Unix()), stat.Blocks * 512}, nil
}
