package confine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// exitFailed is the status of a shim that could not become the program.
const exitFailed = 125

// Exec is the shim, the hidden command Command: it builds the confinement around itself and becomes the program. It
// returns only if it could not, with an exit status, after reporting why.
func Exec() int {
	runtime.LockOSThread() // what follows holds for one thread, which is left when it counts
	out := os.NewFile(reportFD, "report")
	err := become()
	r := report{Error: err.Error(), NoNS: errors.Is(err, errNoNamespaces)}
	var h *Error
	if errors.As(err, &h) {
		r.Hint = h.Hint
	}
	_ = json.NewEncoder(out).Encode(r) // who does not listen is gone
	return exitFailed
}

func become() error {
	if err := unix.CloseRange(planFD, ^uint(0)>>1, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("closing descriptors: %w", err) // older than Linux 5.11
	}
	p, err := readPlan()
	if err != nil {
		return err
	}
	if p.MapUser != nil {
		if err := mapUser(*p.MapUser); err != nil {
			return fmt.Errorf("%w: %w", errNoNamespaces, err)
		}
	}
	dir := p.Dir
	if p.Namespaces {
		if err := buildRoot(p); err != nil {
			return err
		}
		dir = InsideDir
	}
	if err := p.limit(); err != nil {
		return err
	}
	if err := p.drop(); err != nil {
		return err
	}
	if err := p.landlock(dir); err != nil {
		return err
	}
	if err := compile(p.Network, p.Namespaces).install(); err != nil {
		return err
	}
	return execute(p)
}

func readPlan() (*plan, error) {
	f := os.NewFile(planFD, "plan")
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxPlan))
	if err != nil {
		return nil, err
	}
	p := &plan{}
	if err := json.Unmarshal(text, p); err != nil {
		return nil, fmt.Errorf("reading what to start: %w", err)
	}
	return p, nil
}

// mapUser maps one user to himself in our new user namespace, which has nobody else (user_namespaces(7)).
func mapUser(u User) error {
	for _, f := range []struct{ path, text string }{
		{"/proc/self/setgroups", "deny"},
		{"/proc/self/uid_map", fmt.Sprintf("%d %d 1", u.UID, u.UID)},
		{"/proc/self/gid_map", fmt.Sprintf("%d %d 1", u.GID, u.GID)},
	} {
		if err := os.WriteFile(f.path, []byte(f.text), 0); err != nil {
			return fmt.Errorf("mapping the user: %w", err)
		}
	}
	return nil
}

// execute becomes the program.
func execute(p *plan) error {
	argv, err := pointers([]string{p.Name})
	if err != nil {
		return err
	}
	env, err := pointers(p.Env)
	if err != nil {
		return err
	}
	var empty [1]byte
	_, _, errno := unix.RawSyscall6(unix.SYS_EXECVEAT, programFD, uintptr(unsafe.Pointer(&empty[0])),
		uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&env[0])), unix.AT_EMPTY_PATH, 0)
	if errno == unix.ENOENT || errno == unix.EACCES {
		return &Error{fmt.Errorf("executing it: %w", errno), "a program that is not static needs paths with its interpreter and libraries: /usr, /lib, /lib64"}
	}
	return fmt.Errorf("executing it: %w", errno)
}

// pointers returns strings as execve(2) takes them.
func pointers(all []string) ([]*byte, error) {
	list := make([]*byte, 0, len(all)+1)
	for _, s := range all {
		b, err := unix.BytePtrFromString(s)
		if err != nil {
			return nil, err
		}
		list = append(list, b)
	}
	return append(list, nil), nil
}
