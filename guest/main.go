// Torno-guest runs in the sandbox as its first process: it captures every connection of the workload,
// relays each exchange to the broker on the host, and starts the workload without a single secret.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"

	"torno.internal/guest/internal/boot"
	"torno.internal/guest/internal/workload"
	"torno.internal/protocol"
	"torno.internal/protocol/transport"
)

var version = "dev" // set by the linker

func main() { os.Exit(run(os.Args[1:])) }

const usage = `torno run and VMMs start it, as a machine's first process; where that is another: torno-guest attach
  torno-guest [attach] [-wait] [-broker vsock://2:618 | unix:///PATH] [-run ADDRESS] [-uid 1000]`

func run(args []string) int {
	if len(args) == 1 && args[0] == workload.Stage {
		return workload.Exec()
	}
	start := boot.Run
	attached := len(args) > 0 && args[0] == "attach"
	if attached {
		start, args = boot.Attach, args[1:]
	}
	config, err := parse(args, attached)
	if err != nil {
		fmt.Fprintf(os.Stderr, "torno-guest: %v\nhint: %s\n", err, usage)
		return protocol.ExitFailed
	}
	return start(context.Background(), config)
}

// parse reads the flags and, for what they leave out, the kernel command line, where that is ours: of a machine
// whose first process we are, or that we are attached to.
func parse(args []string, attached bool) (config boot.Config, err error) {
	flags := flag.NewFlagSet("torno-guest", flag.ContinueOnError)
	flags.Usage = func() {} // the caller's
	broker := flags.String("broker", "", "where the broker listens")
	run := flags.String("run", "", "where the run channel listens")
	wait := flags.Bool("wait", false, "wait before hello until there is a session")
	uid := flags.Uint("uid", workload.AgentID, "the workload's user")
	debug := flags.Bool("debug", false, "log every step")
	timings := flags.Bool("timings", false, "say when each phase of the start is over")
	if err := flags.Parse(args); err != nil {
		return boot.Config{}, err
	}
	var words boot.Words
	if *broker == "" || attached {
		words = boot.CommandLine()
		*broker, *run = cmp.Or(*broker, words.Broker), cmp.Or(*run, words.Run)
	}
	words.Timings, words.Wait = words.Timings || *timings, words.Wait || *wait
	if words.Probe && !attached {
		boot.Probe()
	}
	options := slog.HandlerOptions{}
	if *debug || words.Debug {
		options.Level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &options))
	config = boot.Config{Version: version, UID: uint32(*uid), Words: words, Log: log}
	if *broker == "" {
		return config, errors.New("no broker: neither -broker nor torno.broker= on the kernel command line")
	}
	if config.Broker, err = transport.ParseAddr(*broker); err == nil && *run != "" {
		config.Run, err = transport.ParseAddr(*run)
	}
	return config, err
}
