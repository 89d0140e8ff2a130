package boot

import (
	"cmp"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Words of the kernel command line. A word that is not torno's is not ours to judge.
const (
	wordBroker  = "torno.broker" // =ADDRESS
	wordRun     = "torno.run"
	wordRoot    = "torno.root"    // a disk named torno-root holds the root file system, to be read only; with =NAME the disk of that name
	wordScratch = "torno.scratch" // likewise, of what is written over it
	wordProbe   = "torno.probe"   // only say that the machine works
	wordRecover = "torno.recover" // only send back the workspace that is on the scratch disk
	wordDebug   = "torno.debug"
	wordBoot    = "torno.boot"    // =NONCE, see bootNonce
	wordWait    = "torno.wait"    // wait before hello until there is a session
	wordTimings = "torno.timings" // say on the console when each phase is over
)

// Words are what the kernel command line says to us.
type Words struct {
	Broker, Run   string // addresses; empty: not given
	Root, Scratch string // disks: their serial numbers, or devices in /dev; empty: none
	Probe, Debug  bool
	Boot          string // nonce, in base64
	Timings, Wait bool
	Recover       bool
}

// CommandLine reads the kernel command line. The first process of a machine finds no /proc yet and mounts
// it.
func CommandLine() Words {
	const path = "/proc/cmdline"
	line, err := os.ReadFile(path)
	if err != nil && os.Getpid() == 1 {
		_ = os.MkdirAll("/proc", 0o755)
		_ = unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
		line, _ = os.ReadFile(path)
	}
	return parseCommandLine(string(line))
}

func parseCommandLine(line string) Words {
	var w Words
	flags := map[string]*bool{wordProbe: &w.Probe, wordDebug: &w.Debug, wordWait: &w.Wait, wordTimings: &w.Timings, wordRecover: &w.Recover}
	values := map[string]*string{wordBroker: &w.Broker, wordRun: &w.Run, wordRoot: &w.Root, wordScratch: &w.Scratch, wordBoot: &w.Boot}
	defaults := map[string]string{wordRoot: diskRoot, wordScratch: diskScratch}
	for word := range strings.FieldsSeq(line) {
		name, value, given := strings.Cut(word, "=")
		if flag := flags[word]; flag != nil {
			*flag = true
		} else if v := values[name]; v != nil && (given || defaults[name] != "") {
			*v = cmp.Or(value, defaults[name])
		}
	}
	return w
}
