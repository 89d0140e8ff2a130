package confine

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// MaxProgram bounds a program, in bytes.
const MaxProgram = 512 << 20

// ErrChanged is matched by the error about a program that is not the one that was declared.
var ErrChanged = errors.New("its SHA-256 is another")

// OpenProgram copies the program at path into memory that nobody can write, not even who may write the file, and
// returns the copy if its SHA-256 is sum: what is executed is what was checked. On ErrChanged got is what it is.
func OpenProgram(path string, sum [sha256.Size]byte) (program *os.File, got [sha256.Size]byte, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a FIFO opens, and is refused
	if err != nil {
		return nil, got, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, got, err
	case !info.Mode().IsRegular():
		return nil, got, fmt.Errorf("%q is no file", path)
	case info.Size() > MaxProgram:
		return nil, got, fmt.Errorf("%q has %d bytes, at most %d are executed", path, info.Size(), MaxProgram)
	}
	program, got, err = copyProgram(f, sum)
	if err != nil {
		return nil, got, fmt.Errorf("%q: %w", path, err)
	}
	return program, got, nil
}

// copyProgram copies what r reads.
func copyProgram(r io.Reader, sum [sha256.Size]byte) (program *os.File, got [sha256.Size]byte, err error) {
	fd, err := unix.MemfdCreate("torno-plugin", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3 all of them are executable
		fd, err = unix.MemfdCreate("torno-plugin", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, got, &Error{fmt.Errorf("memory for the program: %w", err), "sysctl vm.memfd_noexec must not be 2"}
	}
	program = os.NewFile(uintptr(fd), "program")
	defer func() {
		if err != nil {
			program.Close()
			program = nil
		}
	}()
	hash, head := sha256.New(), &prefix{}
	n, err := io.Copy(io.MultiWriter(program, hash, head), io.LimitReader(r, MaxProgram+1))
	if err != nil {
		return nil, got, err
	}
	if hash.Sum(got[:0]); got != sum {
		return nil, got, ErrChanged
	}
	if n > MaxProgram || !bytes.Equal(head.text, []byte("\x7fELF")) {
		return nil, got, &Error{errors.New("it is not an executable of this system"), "a script has an interpreter, which nobody would check: build a program"}
	}
	if err := seal(program); err != nil {
		return nil, got, fmt.Errorf("sealing the program: %w", err)
	}
	// A program that its own user can't read is one whose memory no other process of that user can.
	if err := unix.Fchmod(int(program.Fd()), 0o111); err != nil {
		return nil, got, err
	}
	return program, got, nil
}

// sealWait bounds how long the kernel may still be at work on pages that were written.
const sealWait = 5 * time.Second

// seal has nobody change a file in memory any more. A page that the kernel itself holds for a moment makes that fail as
// one that somebody can still write does: F_ADD_SEALS in fcntl(2).
func seal(f *os.File) error {
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	for end := time.Now().Add(sealWait); ; time.Sleep(10 * time.Millisecond) {
		_, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals)
		if err == nil || !errors.Is(err, unix.EBUSY) || time.Now().After(end) {
			return err
		}
	}
}

// prefix keeps the first four bytes.
type prefix struct{ text []byte }

func (p *prefix) Write(b []byte) (int, error) {
	p.text = append(p.text, b[:min(len(b), 4-len(p.text))]...)
	return len(b), nil
}
