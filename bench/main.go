// Bench measures what torno's path costs beside two yardsticks, in one run on one machine: nginx and a
// tuned httputil.ReverseProxy, each as one hop that ends TLS, adds a credential and begins TLS anew. All
// figures of a round are taken one after the other, and only ratios within a round are compared: absolute
// times are the machine's.
//
// The same binary is also the upstream, the ReverseProxy and the load generator, as subcommands that it
// starts itself.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"torno.internal/bench/internal/soak"
)

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	var err error
	switch {
	case len(args) > 0 && args[0] == "upstream":
		err = serveUpstream(args[1:])
	case len(args) > 0 && args[0] == "revproxy":
		err = serveReverseProxy(args[1:])
	case len(args) > 0 && args[0] == "load":
		signal.Ignore(syscall.SIGINT)
		err = serveLoad(os.Stdin, os.Stdout)
	case len(args) == 1 && args[0] == soak.WorkloadCommand:
		err = soak.Workload()
	case len(args) > 0 && args[0] == soak.AttendCommand:
		err = soak.Attend(context.Background(), args[1:], os.Stdin, os.Stdout)
	case len(args) > 0 && args[0] == "soak":
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
		var machine, load string
		if machine, load, err = surroundings(); err == nil {
			err = soak.Main(ctx, args[1:], soak.Report{Machine: machine, Load: load})
		}
		stop()
	default:
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
		err = bench(ctx, args)
		stop()
	}
	if errors.Is(err, flag.ErrHelp) {
		return 2
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	return 0
}
