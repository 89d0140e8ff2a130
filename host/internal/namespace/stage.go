package namespace

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"torno.internal/host/internal/awake"
)

// ExitFailed is the status of a stage that could not start the guest.
const ExitFailed = 125

const maxPlan = 1 << 20 // bytes

// stageCaps are the capabilities that stage 1 keeps over execve: all that there are, over nothing but
// its own namespaces.
var stageCaps = func() []uintptr {
	var caps []uintptr
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		if unix.Prctl(unix.PR_CAPBSET_READ, c, 0, 0, 0) == nil {
			caps = append(caps, c)
		}
	}
	return caps
}()

// Init is stage 1, the hidden command InitCommand. It builds the root, starts stage 2 and waits for the
// guest's end. It returns the exit status: the guest's own, or ExitFailed after reporting why.
func Init() int {
	runtime.LockOSThread()
	if err := unix.CloseRange(planFD, ^uint(0)>>1, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return ExitFailed // older than Linux 5.11: open_tree's attributes would be missing too
	}
	toParent := os.NewFile(reportFD, "report")
	cmd, err := initialise(&build{report: toParent, guest: os.NewFile(guestFD, "guest")})
	if err != nil {
		return fail(toParent, err)
	}
	toParent.Close() // stage 2 has its own
	// We have mounts that are not locked, and the host's network: nobody looks into us from now on.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return ExitFailed
	}
	if err := cmd.Wait(); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			return ExitFailed
		}
	}
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return cmd.ProcessState.ExitCode()
}

// fail reports err to torno run.
func fail(to *os.File, err error) int {
	r := report{Error: err.Error()}
	var h *Error
	if errors.As(err, &h) {
		r.Hint = h.Hint
	}
	_ = json.NewEncoder(to).Encode(r) // who does not listen is gone
	return ExitFailed
}

func initialise(b *build) (*exec.Cmd, error) {
	if err := readJSON(planFD, &b.plan); err != nil {
		return nil, fmt.Errorf("reading what to build: %w", err)
	}
	life := os.NewFile(lifeFD, "life")
	if _, err := io.ReadFull(life, make([]byte, 1)); err != nil {
		return nil, fmt.Errorf("waiting for the ids: %w", err)
	}
	go func() {
		_, _ = life.Read(make([]byte, 1))
		os.Exit(ExitFailed) // torno run is gone; as process 1 of our namespace we take the rest along
	}()
	if err := b.open(); err != nil { // still as who started us, who may reach what root inside may not
		return nil, err
	}
	if err := becomeRoot(); err != nil {
		return nil, err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, fmt.Errorf("separating the mounts: %w", err)
	}
	if err := b.make(); err != nil {
		return nil, err
	}
	return b.startEnter()
}

func readJSON(fd uintptr, v any) error {
	f := os.NewFile(fd, "plan")
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxPlan))
	if err != nil {
		return err
	}
	return json.Unmarshal(data, v)
}

// becomeRoot becomes root inside, and nobody else's group member.
func becomeRoot() error {
	unix.Umask(0o022)
	if err := syscall.Setgroups(nil); err != nil {
		return fmt.Errorf("leaving the groups: %w", err)
	}
	if err := syscall.Setresgid(0, 0, 0); err != nil {
		return fmt.Errorf("becoming root inside: %w", err)
	}
	if err := syscall.Setresuid(0, 0, 0); err != nil {
		return fmt.Errorf("becoming root inside: %w", err)
	}
	// The change has cleared both. Without the first we cannot map the ids of stage 2.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0); err != nil {
		return err
	}
	return unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0)
}

// startEnter starts stage 2, with the same descriptors at the same places.
func (b *build) startEnter() (*exec.Cmd, error) {
	planRead, planWrite, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer planRead.Close()
	defer planWrite.Close()
	null, err := os.Open("/dev/null")
	if err != nil {
		return nil, err
	}
	defer null.Close()
	uids, err := identity("/proc/self/uid_map")
	if err != nil {
		return nil, err
	}
	gids, err := identity("/proc/self/gid_map")
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("/proc/self/exe", EnterCommand)
	cmd.Args[0] = "torno"
	cmd.Env = []string{}
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{planRead, null, b.report, b.guest}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET |
			unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP,
		UidMappings:                uids,
		GidMappings:                gids,
		GidMappingsEnableSetgroups: true,
		Setsid:                     true,
		Pdeathsig:                  unix.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		return nil, explainClone(err)
	}
	if err := json.NewEncoder(planWrite).Encode(b.plan); err != nil {
		return nil, err
	}
	return cmd, nil
}

// identity returns the map by which every id of stage 1 is the same in stage 2.
func identity(path string) ([]syscall.SysProcIDMap, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var same []syscall.SysProcIDMap
	for line := range strings.Lines(string(text)) {
		var inside, outside, n int
		if _, err := fmt.Sscan(line, &inside, &outside, &n); err != nil {
			return nil, fmt.Errorf("reading %s: %w", path, err)
		}
		same = append(same, syscall.SysProcIDMap{ContainerID: inside, HostID: inside, Size: n})
	}
	return same, nil
}

// Enter is stage 2, the hidden command EnterCommand: it mounts /proc and becomes the guest. It returns
// only if it could not, after reporting why.
func Enter() int {
	runtime.LockOSThread()
	toParent := os.NewFile(reportFD, "report")
	if err := unix.CloseRange(planFD, ^uint(0)>>1, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fail(toParent, err)
	}
	var p plan
	if err := readJSON(planFD, &p); err != nil {
		return fail(toParent, fmt.Errorf("reading what to start: %w", err))
	}
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := unix.Mount("proc", "/proc", "proc", flags, "hidepid=2"); err != nil {
		return fail(toParent, fmt.Errorf("mounting /proc: %w", err))
	}
	// What keys the caller's session has in the kernel (session-keyring(7)) end here. Where the call is
	// missing or forbidden it is so for the guest too.
	_, err := unix.KeyctlInt(unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0)
	if err != nil && err != unix.ENOSYS && err != unix.EPERM {
		return fail(toParent, fmt.Errorf("leaving the session keyring: %w", err))
	}
	env := []string{awake.Variable, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	argv := slices.Concat([]string{"torno-guest"}, p.Args)
	err = syscall.Exec(fmt.Sprintf("/proc/self/fd/%d", guestFD), argv, env)
	return fail(toParent, hinted("torno-guest must be an executable file that everybody may read: chmod 755", fmt.Errorf("executing torno-guest: %w", err)))
}
