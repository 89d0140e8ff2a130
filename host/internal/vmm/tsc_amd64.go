package vmm

import (
	"os"
	"strings"
	"sync"
	"time"
)

// rdtsc reads the processor's time stamp counter.
func rdtsc() uint64

// measureTSC is how long the counter's rate is measured.
const measureTSC = 20 * time.Millisecond

// tscKHz returns the rate of the time stamp counter, or 0 where it has no steady one. The first call takes
// measureTSC.
var tscKHz = sync.OnceValue(func() uint64 {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil || !strings.Contains(string(info), " constant_tsc") {
		return 0
	}
	began, first := time.Now(), rdtsc()
	time.Sleep(measureTSC)
	last, took := rdtsc(), time.Since(began)
	return (last - first) * uint64(time.Millisecond) / uint64(took)
})
