// Torno-guest runs in the sandbox as its first process: it captures every connection of the workload,
// relays each exchange to the broker on the host, and starts the workload without a single secret.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"

	"torno.internal/guest/internal/boot"
	"torno.internal/guest/internal/workload"
	"torno.internal/protocol"
)

var version = "dev" // set by the linker

func main() { os.Exit(run(os.Args[1:])) }

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
	if errors.Is(err, flag.ErrHelp) {
		fmt.Println(usage)
		return 0
	}
	if errors.Is(err, errVersion) {
		fmt.Println("torno-guest " + version)
		return 0
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "torno-guest: %v\nhint: %s\n", err, usage)
		return protocol.ExitFailed
	}
	return start(context.Background(), config)
}
