package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"torno.internal/host/internal/run"
	"torno.internal/host/internal/vmm"
	"torno.internal/images/initramfs"
	"torno.internal/images/rootfs"
	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// recoverMemory is what a VM gets that only reads a disk, in bytes.
const recoverMemory = 512 << 20

// recover boots a VM with a clean guest whose only job is to read the disk of another and to send the
// workspace on it. This machine itself never reads a file system that a workload could write to.
func (l *launch) recover(ctx context.Context, signals <-chan os.Signal) error {
	token := make([]byte, protocol.TokenSize)
	rand.Read(token)
	plan, err := l.planRecovery(ctx, token)
	if err != nil {
		return err
	}
	defer plan.close()
	nobody := uint32(os.Geteuid())
	dir, ln, err := listenRun(nobody)
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	defer ln.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	console := &tailBuffer{limit: 16 << 10}
	vm, err := startVM(ctx, plan, control.SessionCreated{}, start{dir: dir, console: console})
	if err != nil {
		return err
	}
	go func() { <-vm.Done(); cancel() }()
	exit, err := run.Serve(ctx, run.Config{
		Listener: ln, Token: protocol.Token(token), Peer: &nobody, Stdin: null, Stdout: null, Stderr: null,
		Signals: signals, ReceiveWorkspace: l.work.receive, Log: l.log,
	})
	vm.Kill()
	<-vm.Done()
	switch {
	case errors.Is(err, run.ErrNoExit):
		return fmt.Errorf("%w:\n%s", err, console.String())
	case err != nil:
		return err
	case exit.Error != "" && l.work.backErr == nil:
		return errors.New(exit.Error)
	}
	return l.work.backErr
}

// planRecovery opens what such a VM needs: a kernel, the guest and the disk.
func (l *launch) planRecovery(ctx context.Context, token []byte) (plan *vmPlan, err error) {
	p := &vmPlan{spec: vmm.Spec{Machine: vmm.Machine(l.machine.kind), Memory: recoverMemory, Log: l.log}}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	place, err := rootfs.Place()
	if err != nil {
		return nil, err
	}
	k, err := l.findKernel(ctx, place)
	if err != nil {
		return nil, err
	}
	if p.spec.Kernel, err = p.open(k.Path()); err != nil {
		return nil, err
	}
	p.spec.Disks = []vmm.Disk{{Name: scratchDisk, File: l.work.kept.disk}}
	p.spec.Words = []string{"torno.run=vsock://2:" + strconv.Itoa(protocol.RunPort), "torno.recover"}
	if p.spec.Initrd, err = l.initrd(k, nil, initramfs.File{Name: "torno/recover", Mode: initramfs.Regular | 0o600, Data: token}); err != nil {
		return nil, err
	}
	p.spec.Accel, err = l.findAccel(ctx, place, p)
	return p, err
}

func newWorkspaceCommand() *cobra.Command {
	return group("workspace", "List, recover and drop workspaces that did not come back",
		newWorkspaceListCommand(), newWorkspaceRecoverCommand(), newWorkspaceDropCommand())
}

func newWorkspaceListCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "list", Short: "List the workspaces that are kept", Args: exactArgs(0),
		Long: `List the workspaces that are kept: of runs with --workspace that were killed, or
told to end at once, before the command's changes had been copied back.`,
		Example: "  torno workspace list",
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := listKept()
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), all)
			}
			if len(all) == 0 {
				fmt.Fprintln(cmd.ErrOrStderr(), "no workspaces are kept")
				return nil
			}
			var rows [][]string
			for _, k := range all {
				rows = append(rows, []string{k.ID, age(k.Since), mebibytes(k.Bytes), k.Directory})
			}
			return printTable(cmd.OutOrStdout(), []string{"ID", "AGE", "DISK", "DIRECTORY"}, rows)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func newWorkspaceRecoverCommand() *cobra.Command {
	l := launch{}
	cmd := &cobra.Command{
		Use: "recover ID", Short: "Copy back what a run could not", Args: exactArgs(1), ValidArgsFunction: completeKept,
		Long: `Copy back what a run could not, by the same rules as at the end of a run. A VM is
booted for it whose guest only reads the disk that the run has left: this machine
itself never reads a file system that the command could write to.

What the command wrote in its last five seconds may be missing, unless it said
sync.`,
		Example: "  torno workspace recover 20260102-150405-3f9a01",
		RunE: func(cmd *cobra.Command, args []string) error {
			l.log = newRunLog(cmd)
			return l.recoverKept(cmd, args[0])
		},
	}
	f := cmd.Flags()
	f.BoolVar(&l.acceptCode, "accept-host-code", false, "copy back what this machine would execute, too")
	f.StringVar(&l.guest, "guest", "", "torno-guest (default: beside torno, or in PATH)")
	return cmd
}

// recoverKept takes back the workspace of an earlier run.
func (l *launch) recoverKept(cmd *cobra.Command, id string) error {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer signal.Stop(signals)
	k, err := openKept(id)
	if err != nil {
		return err
	}
	w, err := k.load()
	if err != nil {
		k.close()
		return err
	}
	l.work = &work{Workspace: w, kept: k, accept: l.acceptCode, started: true}
	defer l.work.end()
	return l.finish(context.WithoutCancel(cmd.Context()), cmd.ErrOrStderr(), signals)
}

func newWorkspaceDropCommand() *cobra.Command {
	return &cobra.Command{
		Use: "drop ID", Short: "Remove a workspace that is kept, for ever", Args: exactArgs(1), ValidArgsFunction: completeKept,
		Long: `Remove a workspace that is kept, for ever. What the command changed in it and was
not copied back is lost then; the directory itself stays as it is.`,
		Example: "  torno workspace drop 20260102-150405-3f9a01",
		RunE: func(cmd *cobra.Command, args []string) error {
			k, err := openKept(args[0])
			if err != nil {
				return err
			}
			k.remove()
			fmt.Fprintf(cmd.OutOrStdout(), "%s: dropped\n", filepath.Base(k.dir))
			return nil
		},
	}
}

// completeKept offers the workspaces that are kept.
func completeKept(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var ids []string
	if all, err := listKept(); err == nil && len(args) == 0 {
		for _, k := range all {
			ids = append(ids, k.ID+"\t"+k.Directory)
		}
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}
