package boot

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Words of the kernel command line.
const (
	wordBroker = "torno.broker="
	wordRun    = "torno.run="
	wordDebug  = "torno.debug"
)

// CommandLine returns the addresses that the kernel command line gives, empty where it gives none. The
// first process of a machine finds no /proc yet and mounts it.
func CommandLine() (broker, run string, debug bool) {
	const path = "/proc/cmdline"
	line, err := os.ReadFile(path)
	if err != nil && os.Getpid() == 1 {
		_ = os.MkdirAll("/proc", 0o755)
		_ = unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
		line, _ = os.ReadFile(path)
	}
	return parseCommandLine(string(line))
}

func parseCommandLine(line string) (broker, run string, debug bool) {
	for word := range strings.FieldsSeq(line) {
		if v, ok := strings.CutPrefix(word, wordBroker); ok {
			broker = v
		} else if v, ok := strings.CutPrefix(word, wordRun); ok {
			run = v
		} else if word == wordDebug {
			debug = true
		}
	}
	return broker, run, debug
}
