package cli

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"torno.internal/host/internal/vmconfig"
	"torno.internal/images/rootfs"
	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// Names of VMMs whose configuration is written.
const (
	firecracker     = "firecracker"
	cloudHypervisor = "cloud-hypervisor"
)

func newVMCommand() *cobra.Command {
	return group("vm", "VMs that another VMM runs", newVMConfigCommand())
}

// A vmRequest is one torno vm config.
type vmRequest struct {
	launch
	vmm                      string
	socket, vmmSocket        string // BASE, here and as the VMM sees it
	uid                      int
	rootfs, initrdFile, init string
	attach, ownEgress, wait  bool
	noSession, asJSON        bool
}

func newVMConfigCommand() *cobra.Command {
	v := &vmRequest{}
	cmd := &cobra.Command{
		Use:       "config firecracker|cloud-hypervisor --agent NAME --socket PATH [flags] [-- CMD…]",
		Short:     "Write the configuration of a VM for another VMM, and make a session for it",
		ValidArgs: []string{firecracker, cloudHypervisor},
		Long: `Write the configuration of a VM for Firecracker or Cloud Hypervisor, and make a
session for it: the broker listens at PATH_618, where the VMM brings what the
guest dials, until the session ends. PATH itself is the VMM's to make. Each VM
needs a PATH of its own. The session ends a minute after its VM has gone, or by
"torno sessions revoke".

The VM boots torno's kernel, its guest, and an image (--image), or a root file
system of yours (--rootfs), which it sees read-only below what it writes. With
--kernel and --init the guest is in your root file system already; with --attach
that has an init of its own, which starts "torno-guest attach" and the agent.
images/README.md shows how. A kernel of yours needs the drivers inside, or in
an --initrd.

--uid is the user that the VMM runs as, if it is another: the socket is made
with that user's rights and belongs to it. That takes root. The directory must
be writable by nobody else. In a jail the VMM finds kernel, initrd and root at
the paths that are printed, if they are linked there.

--wait boots up to where a snapshot can be taken and restored more than once:
the guest waits there until a session is made for the VM that it finds itself
in. With --no-session none is made now.

What is printed is tested against a stand-in that speaks the VMMs' documented
socket protocol and reads these files. Firecracker needs to be 1.8 or newer for
torno's own kernel, which finds its devices by ACPI.`,
		Example: `  torno vm config firecracker --agent my-agent --socket /run/vm7/v -- python3 agent.py >vm7.json
  firecracker --no-api --config-file vm7.json

  torno vm config cloud-hypervisor --agent my-agent --socket /run/vm8/v --json -- python3 agent.py | jq .config
  torno vm config firecracker --agent my-agent --socket /srv/jailer/firecracker/9/root/v --vmm-socket /v --uid 10009 -- python3 agent.py`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 || args[0] != firecracker && args[0] != cloudHypervisor {
				return usageError{&hintError{errors.New("which VMM?"), "torno vm config firecracker, or cloud-hypervisor"}}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			v.vmm, v.argv = args[0], args[1:]
			v.log = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn}))
			return v.run(cmd)
		},
	}
	v.flags(cmd)
	return cmd
}

func (v *vmRequest) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&v.agent, "agent", "", "whose secrets and policy (required)")
	f.StringVar(&v.socket, "socket", "", "`path` of the VMM's vsock socket, absolute (required)")
	f.StringVar(&v.vmmSocket, "vmm-socket", "", "the same `path` as the VMM sees it: in its jail, or relative to its directory")
	f.IntVar(&v.uid, "uid", os.Geteuid(), "`user` that the VMM runs as")
	f.StringVar(&v.machine.image, "image", rootfs.Base, "`name` of the VM's root file system (torno image list)")
	f.StringVar(&v.rootfs, "rootfs", "", "`file` with a root file system of yours instead")
	f.StringVar(&v.machine.kernel, "kernel", "", "`file` of another kernel; with --init and --attach an uncompressed vmlinux")
	f.StringVar(&v.init, "init", "", "`path` of torno-guest in --rootfs, which the kernel starts itself")
	f.BoolVar(&v.attach, "attach", false, "the root file system has an init of its own, which starts torno-guest attach")
	f.StringVar(&v.initrdFile, "initrd", "", "`file` with the initial file system of your --kernel, with --init and --attach")
	f.BoolVar(&v.ownEgress, "own-egress", false, "the VM has a network card: credentials are added, nothing is contained")
	f.BoolVar(&v.wait, "wait", false, "the guest waits before its hello, for snapshots")
	f.StringVar(&v.machine.memory, "memory", defaultMemory, "the VM's memory, in M or G")
	f.IntVar(&v.machine.cpus, "cpus", 1, "the VM's processors")
	f.BoolVar(&v.noSession, "no-session", false, "make no session")
	f.BoolVar(&v.trustConfig, "trust-config", false, "approve torno.toml as it stands now, without asking")
	f.StringVar(&v.guest, "guest", "", "torno-guest (default: beside torno, or in PATH)")
	f.BoolVar(&v.asJSON, "json", false, "print session and configuration as JSON")
	_ = cmd.RegisterFlagCompletionFunc("agent", completeAgents)
	_ = cmd.RegisterFlagCompletionFunc("image", completeImages)
	_ = cmd.MarkFlagFilename("rootfs")
	_ = cmd.MarkFlagFilename("kernel")
	_ = cmd.MarkFlagFilename("initrd")
}

// check is what is wrong with the flags by themselves.
func (v *vmRequest) check() error {
	ownKernel := v.init != "" || v.attach
	switch {
	case !control.ValidAgent(v.agent):
		return &hintError{fmt.Errorf("--agent %q is not an agent's name", v.agent), "torno vm config " + v.vmm + " --agent NAME …; a name is " + control.AgentGrammar}
	case !filepath.IsAbs(v.socket) || filepath.Clean(v.socket) != v.socket:
		return &hintError{fmt.Errorf("--socket %q is not an absolute path", v.socket), "--socket /run/vm7/v, in a directory of this VM's"}
	case v.uid < 0:
		return fmt.Errorf("--uid %d", v.uid)
	case v.attach && v.init != "":
		return errors.New("--init is torno-guest as the first process, --attach is not: one of the two")
	case v.attach && len(v.argv) > 0:
		return &hintError{errors.New("with --attach the VM starts its own programs"), "leave the command out"}
	case !v.attach && len(v.argv) == 0:
		return &hintError{errors.New("no command"), "torno vm config … -- CMD, or --attach"}
	case ownKernel && (v.rootfs == "" || v.machine.kernel == ""):
		return &hintError{errors.New("--init and --attach need a root file system and a kernel of yours"), "--rootfs FILE --kernel FILE"}
	case !ownKernel && v.initrdFile != "":
		return &hintError{errors.New("--initrd is for --init and --attach"), "leave it out: the guest comes in an initrd of torno's"}
	}
	return nil
}

// run is the command. The session comes last, so that nothing is left where something is wrong.
func (v *vmRequest) run(cmd *cobra.Command) error {
	if err := v.check(); err != nil {
		return usageError{err}
	}
	m, err := v.plan(cmd)
	if err != nil {
		return err
	}
	out := vmOutput{VMM: v.vmm}
	if v.vmm == firecracker {
		out.Config, err = m.Firecracker()
	} else {
		var c vmconfig.CloudHypervisor
		if c, err = m.CloudHypervisor(); err == nil {
			out.Config = c
			out.Arguments, err = c.Arguments()
		}
	}
	if err != nil {
		return err
	}
	if !v.noSession {
		if err := v.register(cmd, &out); err != nil {
			return err
		}
	}
	return out.print(cmd, v.asJSON, v.socket)
}

// register makes the session that waits for the VM.
func (v *vmRequest) register(cmd *cobra.Command, out *vmOutput) error {
	c, err := ensure(cmd.Context())
	if err != nil {
		return err
	}
	dir, err := workingDir()
	if err != nil {
		return err
	}
	uid := uint32(v.uid)
	req := control.SessionRequest{
		Agent: v.agent, Isolation: protocol.IsolationMicroVM, PeerUID: &uid, Socket: "hybrid://" + v.socket,
		Attach: v.attach, OwnEgress: v.ownEgress, Workload: protocol.Workload{Argv: v.argv},
	}
	if req.File, err = v.agentFile(cmd, c, dir); err != nil {
		return err
	}
	var session control.SessionCreated
	if err := c.do(cmd.Context(), "POST", control.PathSessions, req, &session); err != nil {
		return v.explain(err)
	}
	out.Session, out.Socket, out.Warnings = session.ID, session.Broker, session.Warnings
	return nil
}
