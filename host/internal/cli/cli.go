// Package cli is the command torno: it reads flags and files, speaks to the broker's control socket, and
// prints for people or, with --json, for programs.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"torno.internal/host/internal/config"
	"torno.internal/host/internal/namespace"
	"torno.internal/host/internal/vmm"
	"torno.internal/images/kernel"
	"torno.internal/images/rootfs"
	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// Exit codes of every command but run, which passes on the workload's.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// A usageError means that the command was used wrongly.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// A hintError carries what a person can do about the error in it.
type hintError struct {
	error
	hint string
}

func (e *hintError) Unwrap() error { return e.error }

// An exitError ends the command with a code of its own; a nil error in it prints nothing.
type exitError struct {
	error
	code int
}

func (e *exitError) Unwrap() error { return e.error }

// Run runs torno with args and returns its exit code.
func Run(ctx context.Context, version string, args []string) int {
	root := newRoot(version)
	root.SetArgs(args)
	return execute(ctx, root)
}

// execute runs a command that has its arguments, and returns its exit code.
func execute(ctx context.Context, root *cobra.Command) int {
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	code := exitFailed
	var exit *exitError
	var usage usageError
	if errors.As(err, &exit) {
		code, err = exit.code, exit.error
	} else if errors.As(err, &usage) || strings.HasPrefix(err.Error(), "unknown command") || strings.HasPrefix(err.Error(), "required flag") {
		code = exitUsage
	}
	if err != nil {
		report(root.ErrOrStderr(), err)
	}
	return code
}

// report prints an error and, on a line of its own, the hint that goes with it.
func report(w io.Writer, err error) {
	fmt.Fprintf(w, "torno: %s\n", escapeLines(err.Error()))
	if hint := hintOf(err); hint != "" {
		fmt.Fprintf(w, "hint: %s\n", escapeLines(hint))
	}
}

func hintOf(err error) string {
	var h *hintError
	var c *control.Error
	var n *namespace.Error
	var v *vmm.Error
	var k *kernel.Error
	var i *rootfs.Error
	switch {
	case errors.As(err, &h):
		return h.hint
	case errors.As(err, &c):
		return c.Hint
	case errors.As(err, &n):
		return n.Hint
	case errors.As(err, &v):
		return v.Hint
	case errors.As(err, &k):
		return k.Hint
	case errors.As(err, &i):
		return i.Hint
	}
	return ""
}

// escapeLines makes text of several lines safe for a terminal.
func escapeLines(s string) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	for i, l := range lines {
		lines[i] = config.EscapeControl(strings.ReplaceAll(l, "\t", "    "))
	}
	return strings.Join(lines, "\n")
}

func newRoot(version string) *cobra.Command {
	root := &cobra.Command{
		Use:   "torno",
		Short: "Credentials that an AI agent can use and can never hold",
		Long: `torno lets an AI agent use credentials that it can never hold.

The agent runs where it has no key and no network. torno-guest captures its
traffic there and asks the broker, on the host, to send each request; the broker
decides, adds the credential, sends it and records it.

Exit status: 0 done, 1 failed, 2 wrong usage. "torno run" exits as its workload
does: its own code, 128+n for signal n, 126 not executable, 127 not found, and
125 when torno itself failed.

Environment: TORNO_STATE is where the broker keeps its state (default:
$XDG_STATE_HOME/torno); XDG_RUNTIME_DIR holds its sockets (default: /run).`,
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.SetVersionTemplate("torno {{.Version}}\n")
	root.SetUsageTemplate(strings.ReplaceAll(root.UsageTemplate(), ".FlagUsages", ".FlagUsagesWrapped 80"))
	root.AddCommand(
		newDemoCommand(), newDoctorCommand(version), newInitCommand(), newServeCommand(version), newReloadCommand(), newRunCommand(),
		newTrustCommand(), newSecretsCommand(), newPluginCommand(), newKeyCommand(), newStoreCommand(), newSessionsCommand(), newPolicyCommand(), newApprovalsCommand(), newAuditCommand(), newImageCommand(), newWorkspaceCommand(), newVMCommand(),
		newTUICommand(), newVersionCommand(version), newManualCommand(version),
	)
	root.AddCommand(helpTopics()...)
	return root
}

func newVersionCommand(version string) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: exactArgs(0),
		Long: `Print the version of this program and the protocol that it speaks with guests. A
broker that has been running longer may be another one: "torno doctor" says so.`,
		Example: "  torno version",
		RunE: func(cmd *cobra.Command, _ []string) error {
			fmt.Fprintf(cmd.OutOrStdout(), "torno %s (protocol %d, %s)\n", version, protocol.Version, runtime.Version())
			return nil
		},
	}
}

// exactArgs is cobra.ExactArgs whose error is wrong usage.
func exactArgs(n int) cobra.PositionalArgs { return rangeArgs(n, n) }

func rangeArgs(low, high int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < low || high >= 0 && len(args) > high {
			return usageError{&hintError{fmt.Errorf("%s: wrong number of arguments", cmd.CommandPath()), "usage: " + cmd.UseLine()}}
		}
		return nil
	}
}

// group returns a command that only holds others.
func group(use, short string, children ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		return usageError{&hintError{fmt.Errorf("%s: which?", cmd.CommandPath()), "torno " + use + " --help"}}
	}}
	cmd.AddCommand(children...)
	return cmd
}

// printJSON prints v for programs.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// printTable prints rows under a heading, aligned. Cells are escaped.
func printTable(w io.Writer, heading []string, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	for _, row := range append([][]string{heading}, rows...) {
		for i, cell := range row {
			row[i] = config.EscapeControl(cell)
		}
		fmt.Fprintln(t, strings.TrimRight(strings.Join(row, "\t"), "\t"))
	}
	return t.Flush()
}

// isTerminal reports whether f is one.
func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && terminalOf(f)
}
