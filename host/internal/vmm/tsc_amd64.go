package vmm

import (
	"os"
	"strings"
	"sync"
	"time"
)

// rdtsc reads the processor's time stamp counter.
func rdtsc() uint64

// measureTSC is how long the counter's rate is measured at least.
const measureTSC = 20 * time.Millisecond

// A tscSample is what the counter said when.
type tscSample struct {
	at    time.Time
	count uint64
}

// firstTSC is where the measurement begins: at its first call.
var firstTSC = sync.OnceValue(func() tscSample { return tscSample{time.Now(), rdtsc()} })

// beginTSC lets tscKHz wait less later.
func beginTSC() { firstTSC() }

// tscKHz returns the rate of the time stamp counter, or 0 where it has no steady one. It waits until
// measureTSC has passed since firstTSC.
var tscKHz = sync.OnceValue(func() uint64 {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil || !strings.Contains(string(info), " constant_tsc") {
		return 0
	}
	first := firstTSC()
	time.Sleep(measureTSC - time.Since(first.at))
	last, took := rdtsc(), time.Since(first.at)
	return (last - first.count) * uint64(time.Millisecond) / uint64(took)
})
