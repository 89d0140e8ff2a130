package main

import (
	"cmp"
	"errors"
	"flag"
	"io"
	"log/slog"
	"os"
	"strconv"

	"torno.internal/guest/internal/boot"
	"torno.internal/guest/internal/workload"
	"torno.internal/protocol/transport"
)

const usage = `torno run and VMMs start it, as a machine's first process; where that is another: torno-guest attach
  torno-guest [attach] [-wait] [-broker vsock://2:618 | unix:///PATH] [-run ADDRESS] [-uid 1000] | -version`

// errVersion means that somebody only wants to know which guest this is.
var errVersion = errors.New("asked for the version")

// parse reads the flags and, for what they leave out, the kernel command line, where that is ours: of a machine
// whose first process we are, or that we are attached to.
func parse(args []string, attached bool) (config boot.Config, err error) {
	flags := flag.NewFlagSet("torno-guest", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // the caller says what is wrong, and usage
	broker := flags.String("broker", "", "where the broker listens")
	run := flags.String("run", "", "where the run channel listens")
	wait := flags.Bool("wait", false, "wait before hello until there is a session")
	uid := uint32(workload.AgentID)
	flags.Func("uid", "attached, beside a network card: the workload's `user`", func(s string) error {
		n, err := strconv.ParseUint(s, 10, 31)
		uid = uint32(n)
		return err
	})
	debug := flags.Bool("debug", false, "log every step")
	timings := flags.Bool("timings", false, "say when each phase of the start is over")
	asked := flags.Bool("version", false, "print the version and end")
	if err := flags.Parse(args); err != nil {
		return boot.Config{}, err
	}
	if *asked {
		return boot.Config{}, errVersion
	}
	var words boot.Words
	if *broker == "" || attached {
		words = boot.CommandLine()
		*broker, *run = cmp.Or(*broker, words.Broker), cmp.Or(*run, words.Run)
	}
	words.Timings, words.Wait = words.Timings || *timings, words.Wait || *wait
	words.Recover = words.Recover && !attached
	if words.Probe && !attached {
		boot.Probe()
	}
	options := slog.HandlerOptions{}
	if *debug || words.Debug {
		options.Level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &options))
	config = boot.Config{Version: version, UID: uid, Words: words, Log: log}
	err = parseAddresses(&config, *broker, *run)
	return config, err
}

// parseAddresses reads where the broker and the run channel are. A machine that only recovers a workspace has
// business with the second alone.
func parseAddresses(config *boot.Config, broker, run string) (err error) {
	if broker == "" && !config.Words.Recover {
		return errors.New("no broker: neither -broker nor torno.broker= on the kernel command line")
	}
	if broker != "" {
		if config.Broker, err = transport.ParseAddr(broker); err != nil {
			return err
		}
	}
	if run != "" {
		config.Run, err = transport.ParseAddr(run)
	}
	return err
}
