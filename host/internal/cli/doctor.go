package cli

import (
	"fmt"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"torno.internal/host/internal/doctor"
)

func newDoctorCommand(version string) *cobra.Command {
	d := diagnosis{version: version, sysctl: "/proc/sys", kvm: "/dev/kvm", vhost: "/dev/vhost-vsock", booted: "/run/systemd/system"}
	var asJSON, mend bool
	cmd := &cobra.Command{
		Use: "doctor", Short: "Look for what keeps torno from working here", Args: exactArgs(0),
		Long: `Look for what keeps torno from working here: the kernel, KVM and QEMU, images,
the store and its sockets, the broker, its files and certificates, proxies and
the upstreams that secrets are bound to, which are called but sent nothing.

Each line is one thing: ok, warn or fail; below it stand what it is for and what
to do. Namespaces and a VM are made for a moment and taken down again; nothing
else is changed, unless --fix says so. That mends what is safe: it takes modes
for others off torno's own files and directories, and removes a control socket
that nobody listens on. Lines that begin with "fixed" say what it did.

Exit status: 0 if nothing fails, 1 otherwise.`,
		Example: "  torno doctor\n  torno doctor --fix\n  torno doctor --offline --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			findings := doctor.Run(cmd.Context(), d.checks(), mend)
			if asJSON {
				if err := printJSON(cmd.OutOrStdout(), findings); err != nil {
					return err
				}
			} else {
				printFindings(cmd, findings)
			}
			if doctor.Failed(findings) {
				return &exitError{nil, exitFailed}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&mend, "fix", false, "mend what is safe, and say what that was")
	cmd.Flags().BoolVar(&d.offline, "offline", false, "call neither proxy nor upstreams")
	return cmd
}

func printFindings(cmd *cobra.Command, findings []doctor.Finding) {
	out := cmd.OutOrStdout()
	for _, f := range findings {
		fmt.Fprintf(out, "%-5s  %-11s  %s\n", f.State, f.Check, escapeLines(f.Detail))
		for _, line := range [][2]string{{"did", f.Fixed}, {"why", f.Why}, {"hint", f.Hint}} {
			if f.State != doctor.StateOK && line[1] != "" {
				fmt.Fprintf(out, "%-20s%s: %s\n", "", line[0], escapeLines(line[1]))
			}
		}
	}
}

// A diagnosis is one torno doctor. The paths are of the machine.
type diagnosis struct {
	version string
	offline bool
	sysctl  string // /proc/sys
	kvm     string // device
	vhost   string // device
	booted  string // there where systemd runs
}

// checks are what is looked at, in order.
func (d *diagnosis) checks() []doctor.Check {
	return slices.Concat([]doctor.Check{
		{Name: "kernel", Why: "namespaces, VMs and the guest's capture use what it has", Look: d.kernel},
		{Name: "confinement", Why: "QEMU and what agents run are confined by the kernel's filters", Look: d.confinement},
		{Name: "userns", Why: "--isolation namespace, and images that are built without root, need them", Look: d.userns},
		{Name: "namespaces", Why: "--isolation namespace runs commands in them", Look: d.namespaces},
		{Name: "kvm", Why: "it runs VMs at full speed", Look: d.tryKVM},
		{Name: "qemu", Why: "torno run runs VMs with it; --isolation namespace needs none", Look: d.qemu},
		{Name: "vhost-vsock", Why: "VMs of other VMMs may reach the broker by the kernel's vsock", Look: d.vhostVSOCK},
		{Name: "images", Why: "VMs boot a kernel and an image", Look: d.images},
		{Name: "guest", Why: "it is what stands between an agent and the broker", Look: d.guest},
		{Name: "clock", Why: "certificates are valid from one time to another, and the audit says when", Look: d.clock},
		{Name: "disk", Why: "a broker that can't record refuses every request", Look: d.disk},
	}, d.own(), []doctor.Check{
		{Name: "ca", Why: "upstreams prove who they are by certificates of authorities", Look: d.ca},
		{Name: "proxy", Why: "all requests go through it", Look: d.proxy},
		{Name: "upstreams", Why: "these are where the agents' secrets may go", Look: d.upstreams},
		{Name: "agent file", Why: "torno run uses no torno.toml that nobody has approved", Look: d.agentFile},
	})
}

// own are the checks of what torno itself has and runs.
func (d *diagnosis) own() []doctor.Check {
	return []doctor.Check{
		{Name: "state", Why: "whoever reaches it can take the key of all secrets, or put an older state back", Look: d.state},
		{Name: "store", Why: "nothing opens without its key", Look: d.store},
		{Name: "sockets", Why: "whoever reaches them can ask the broker for what you can", Look: d.sockets},
		{Name: "broker.toml", Why: "a broker does not start with a file that it can't read", Look: d.operatorFile},
		{Name: "broker", Why: "it should be the one that this torno speaks with", Look: d.broker},
		{Name: "unit", Why: "as a service the broker outlives logins and reboots", Look: d.unit},
		{Name: "sessions", Why: "some sessions are told apart or contained less well than others", Look: d.sessions},
	}
}

// failed is a finding of an error, with the hint that it carries, or the one given.
func failed(err error, hint string) doctor.Finding {
	if h := hintOf(err); h != "" {
		hint = h
	}
	return doctor.Fail(hint, "%v", err)
}

// missing is failed for what torno can do without.
func missing(err error, hint string) doctor.Finding {
	f := failed(err, hint)
	f.State = doctor.StateWarn
	return f
}

func isRoot() bool { return os.Geteuid() == 0 }
