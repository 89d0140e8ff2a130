package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"torno.internal/host/internal/namespace"
	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// A finding is what doctor says of one thing.
type finding struct {
	Check  string `json:"check"`
	State  string `json:"state"` // "ok", "warn" or "fail"
	Detail string `json:"detail"`
	Hint   string `json:"hint,omitempty"`
}

// checks are what doctor looks at, in order. Each changes nothing.
var checks = []struct {
	name string
	run  func(context.Context) finding
}{
	{"kernel", checkKernel},
	{"namespaces", checkNamespaces},
	{"guest", checkGuest},
	{"state", checkState},
	{"sockets", checkSockets},
	{"broker", checkBroker},
}

func newDoctorCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "doctor", Short: "Look for what keeps torno from working here", Args: exactArgs(0),
		Long: `Look for what keeps torno from working here. Each line is one thing: ok, warn or
fail, and a hint what to do. Nothing is changed.

Exit status: 0 if nothing fails, 1 otherwise.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var findings []finding
			failed := 0
			for _, c := range checks {
				f := c.run(cmd.Context())
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

func checkKernel(context.Context) finding {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return fail(err, "")
	}
	var major, minor int
	release := unix.ByteSliceToString(u.Release[:])
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err == nil && (major < 5 || major == 5 && minor < 11) {
		return fail(fmt.Errorf("Linux %s is too old", release), "torno needs Linux 5.11 or newer")
	}
	return ok("Linux %s", release)
}

func checkNamespaces(context.Context) finding {
	ids, err := namespace.FindIDs()
	if err != nil {
		return fail(err, "")
	}
	return ok("user ids %d (guest) and %d (agent)", ids.Peer(), ids.Agent())
}

func checkGuest(context.Context) finding {
	path, err := (&launch{}).findGuest()
	if err != nil {
		return fail(err, "")
	}
	if out, err := exec.Command(path, "-version").CombinedOutput(); err == nil {
		return ok("%s, %s", path, firstLine(string(out)))
	}
	return ok("%s", path)
}

func checkState(context.Context) finding {
	dir, err := stateDir()
	if err != nil {
		return fail(err, "")
	}
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return ok("%s, made by the first broker", dir)
	case err != nil:
		return fail(err, "")
	case info.Mode().Perm()&0o077 != 0:
		return fail(fmt.Errorf("others can reach %s", dir), "chmod 700 "+dir)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err == nil {
		if free := fs.Bavail * uint64(fs.Bsize) >> 20; free < 64 {
			return finding{State: "warn", Detail: fmt.Sprintf("%s has %d MiB left", dir, free), Hint: "a broker that can't record refuses every request"}
		}
	}
	return ok("%s", dir)
}

func checkSockets(context.Context) finding {
	dir, err := runtimeDir()
	if err != nil {
		return fail(err, "")
	}
	parent := filepath.Dir(dir)
	if _, err := os.Stat(parent); err != nil && os.Getenv("XDG_RUNTIME_DIR") == "" {
		return fail(err, "")
	}
	return ok("%s", dir)
}

func checkBroker(ctx context.Context) finding {
	c, err := connect()
	if err != nil {
		return fail(err, "")
	}
	var h control.Health
	if err := c.do(ctx, "GET", control.PathHealth, nil, &h); err != nil {
		return finding{State: "ok", Detail: "none runs; torno run starts one"}
	}
	if h.Protocol < protocol.MinVersion || h.Protocol > protocol.Version {
		return finding{State: "warn", Detail: fmt.Sprintf("the broker speaks protocol %d, this torno %d", h.Protocol, protocol.Version), Hint: "restart torno serve"}
	}
	return ok("%s, process %d, %d sessions", h.Version, h.PID, h.Sessions)
}
