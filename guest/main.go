// Torno-guest runs in the sandbox as its first process: it captures every connection of the workload,
// relays each exchange to the broker on the host, and starts the workload without a single secret.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"torno.internal/guest/internal/boot"
	"torno.internal/guest/internal/workload"
	"torno.internal/protocol"
	"torno.internal/protocol/transport"
)

var version = "dev" // set by the linker

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	if len(args) == 1 && args[0] == workload.Stage {
		return workload.Exec()
	}
	config, err := parse(args)
	if err != nil {
		fmt.Fprintf(os.Stderr, "torno-guest: %v\nhint: torno run starts it; by hand: torno-guest -broker unix:///PATH [-run unix:///PATH]\n", err)
		return protocol.ExitFailed
	}
	return boot.Run(context.Background(), config)
}

// parse reads the flags and, for what they leave out, the kernel command line.
func parse(args []string) (boot.Config, error) {
	flags := flag.NewFlagSet("torno-guest", flag.ContinueOnError)
	broker := flags.String("broker", "", "where the broker listens")
	run := flags.String("run", "", "where the run channel listens")
	debug := flags.Bool("debug", false, "log every step")
	timings := flags.Bool("timings", false, "say when each phase of the start is over")
	if err := flags.Parse(args); err != nil {
		return boot.Config{}, err
	}
	var words boot.Words
	if *broker == "" {
		words = boot.CommandLine()
		*broker, *run, *debug = words.Broker, words.Run, words.Debug
	}
	words.Timings = words.Timings || *timings
	if words.Probe {
		boot.Probe()
	}
	level := slog.LevelInfo
	if *debug {
		level = slog.LevelDebug
	}
	config := boot.Config{Version: version, Words: words, Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))}
	var err error
	if strings.TrimSpace(*broker) == "" {
		return boot.Config{}, fmt.Errorf("no broker: neither -broker nor torno.broker= on the kernel command line")
	}
	if config.Broker, err = transport.ParseAddr(*broker); err == nil && *run != "" {
		config.Run, err = transport.ParseAddr(*run)
	}
	return config, err
}
