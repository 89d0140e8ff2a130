// Command torno is what people use: it serves the broker, sets secrets, runs agents and shows what they
// did.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"torno.internal/host/internal/cli"
	"torno.internal/host/internal/namespace"
	"torno.internal/host/internal/vmm"
)

// version is set by the linker.
var version = "dev"

func main() {
	if len(os.Args) > 1 {
		switch os.Args[1] { // stages of the namespace, executed by torno itself
		case namespace.InitCommand:
			os.Exit(namespace.Init())
		case namespace.EnterCommand:
			os.Exit(namespace.Enter())
		case namespace.ProbeCommand:
			os.Exit(namespace.Probe())
		case cli.PluginExecCommand: // becomes a plugin
			os.Exit(cli.PluginExec())
		case vmm.ExecCommand: // becomes QEMU
			os.Exit(vmm.Exec(os.Args[2:]))
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := cli.Run(ctx, version, os.Args[1:])
	stop()
	os.Exit(code)
}
