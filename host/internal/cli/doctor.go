package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"torno.internal/host/internal/namespace"
	"torno.internal/protocol"
)

// A finding is what doctor says of one thing.
type finding struct {
	Check  string `json:"check"`
	State  string `json:"state"` // "ok", "warn" or "fail"
	Detail string `json:"detail"`
	Hint   string `json:"hint,omitempty"`
}

// checks are what doctor looks at, in order.
var checks = []struct {
	name string
	run  func(ctx context.Context, version string) finding
}{
	{"kernel", checkKernel},
	{"namespaces", checkNamespaces},
	{"clock", checkClock},
	{"guest", checkGuest},
	{"state", checkState},
	{"sockets", checkSockets},
	{"broker", checkBroker},
	{"sessions", checkSessions},
	{"proxy", checkProxy},
}

func newDoctorCommand(version string) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "doctor", Short: "Look for what keeps torno from working here", Args: exactArgs(0),
		Long: `Look for what keeps torno from working here. Each line is one thing: ok, warn or
fail, and a hint what to do. Namespaces are made for a moment and taken down
again; nothing else is changed.

Exit status: 0 if nothing fails, 1 otherwise.`,
		Example: "  torno doctor\n  torno doctor --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var findings []finding
			failed := 0
			for _, c := range checks {
				f := c.run(cmd.Context(), version)
				f.Check = c.name
				findings = append(findings, f)
				if f.State == "fail" {
					failed++
				}
			}
			if asJSON {
				if err := printJSON(cmd.OutOrStdout(), findings); err != nil {
					return err
				}
			} else {
				printFindings(cmd, findings)
			}
			if failed > 0 {
				return &exitError{nil, exitFailed}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printFindings(cmd *cobra.Command, findings []finding) {
	for _, f := range findings {
		fmt.Fprintf(cmd.OutOrStdout(), "%-4s  %-11s %s\n", f.State, f.Check, escapeLines(f.Detail))
		if f.Hint != "" {
			fmt.Fprintf(cmd.OutOrStdout(), "      %-11s hint: %s\n", "", escapeLines(f.Hint))
		}
	}
}

func ok(format string, args ...any) finding {
	return finding{State: "ok", Detail: fmt.Sprintf(format, args...)}
}

func fail(err error, hint string) finding {
	if h := hintOf(err); h != "" {
		hint = h
	}
	return finding{State: "fail", Detail: err.Error(), Hint: hint}
}

func checkKernel(context.Context, string) finding {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return fail(err, "")
	}
	var major, minor int
	release := unix.ByteSliceToString(u.Release[:])
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err == nil && (major < 5 || major == 5 && minor < 12) {
		return fail(fmt.Errorf("kernel %s is too old", release), "torno needs Linux 5.12 or newer")
	}
	return ok("Linux %s", release)
}

// tryTimeout bounds the trial of namespaces.
const tryTimeout = 20 * time.Second

// checkNamespaces makes some: kernels, sysctls, security modules and containers forbid them in many ways.
func checkNamespaces(ctx context.Context, _ string) finding {
	ids, err := namespace.FindIDs()
	if err != nil {
		return fail(err, "")
	}
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	began := time.Now()
	if err := namespace.Try(ctx, ids); err != nil {
		return fail(err, "")
	}
	return ok("made in %v, with nf_tables; ids %d (guest), %d (agent)", time.Since(began).Round(time.Millisecond), ids.Peer(), ids.Agent())
}

// checkClock compares with the time that this program was made: certificates of a clock that is behind
// it are not valid yet.
func checkClock(context.Context, string) finding {
	self, err := os.Executable()
	if err != nil {
		return fail(err, "")
	}
	info, err := os.Stat(self)
	if err != nil {
		return fail(err, "")
	}
	now := time.Now()
	if now.Before(info.ModTime().Add(-time.Hour)) {
		return fail(fmt.Errorf("it is %s, before torno was made", now.Format(time.RFC3339)), "set the clock; upstream certificates will not verify")
	}
	return ok("%s", now.Format(time.RFC3339))
}

func checkGuest(context.Context, string) finding {
	path, err := (&launch{}).findGuest()
	if err != nil {
		return fail(err, "")
	}
	if out, err := exec.Command(path, "-version").CombinedOutput(); err == nil {
		return ok("%s, %s", path, firstLine(string(out)))
	}
	return ok("%s", path)
}

func checkState(context.Context, string) finding {
	dir, err := stateDir()
	if err != nil {
		return fail(err, "")
	}
	f := checkPrivate(dir)
	var disk unix.Statfs_t
	if err := unix.Statfs(dir, &disk); err == nil && f.State == "ok" {
		if free := disk.Bavail * uint64(disk.Bsize) >> 20; free < 64 {
			return finding{State: "warn", Detail: fmt.Sprintf("%s has %d MiB left", dir, free), Hint: "a broker that can't record refuses every request"}
		}
	}
	return f
}

func checkSockets(context.Context, string) finding {
	dir, err := runtimeDir()
	if err != nil {
		return fail(err, "")
	}
	return checkPrivate(dir)
}

// checkPrivate looks whether dir is ours alone. One that is not there must be possible to make.
func checkPrivate(dir string) finding {
	info, err := os.Lstat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		parent := dir
		for errors.Is(err, fs.ErrNotExist) {
			parent = filepath.Dir(parent)
			_, err = os.Stat(parent)
		}
		if err := unix.Access(parent, unix.W_OK); err != nil {
			return fail(fmt.Errorf("%s cannot be made: %s: %w", dir, parent, err), "name another place: TORNO_STATE for state, XDG_RUNTIME_DIR for sockets")
		}
		return ok("%s, made by the first broker", dir)
	case err != nil:
		return fail(err, "")
	case !info.IsDir():
		return fail(fmt.Errorf("%s is not a directory", dir), "")
	}
	if st, isStat := info.Sys().(*syscall.Stat_t); isStat && int(st.Uid) != os.Geteuid() {
		return fail(fmt.Errorf("%s belongs to user %d", dir, st.Uid), "run torno as that user, or name another place")
	}
	if info.Mode().Perm()&0o077 != 0 {
		return fail(fmt.Errorf("others can reach %s", dir), "chmod 700 "+dir)
	}
	return ok("%s", dir)
}

func checkBroker(ctx context.Context, version string) finding {
	c, err := connect()
	if err != nil {
		return fail(err, "")
	}
	h, err := c.health(ctx)
	if errors.Is(err, errNoBroker) {
		return ok("none runs; the first command that needs one starts it")
	}
	if err != nil {
		return fail(err, "")
	}
	if h.Protocol < protocol.MinVersion || h.Protocol > protocol.Version {
		return finding{State: "warn", Detail: fmt.Sprintf("the broker speaks protocol %d, this torno %d", h.Protocol, protocol.Version), Hint: "restart torno serve"}
	}
	if h.Version != version {
		return finding{State: "warn", Detail: fmt.Sprintf("version %s runs, this torno is %s", h.Version, version), Hint: "restart torno serve"}
	}
	return ok("%s, process %d, %d sessions", h.Version, h.PID, h.Sessions)
}
