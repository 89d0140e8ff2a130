//go:build profile

package main

import (
	"os"
	"os/signal"
	"runtime/pprof"
	"syscall"

	"golang.org/x/sys/unix"
)

// In a build with the tag profile, which make bench alone makes, signal 40 begins a CPU profile and
// signal 41 ends it. It is written to a file in memory: who may look into this process finds it below
// /proc/PID/fd.
func init() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.Signal(40), syscall.Signal(41))
	go profile(signals)
}

// profile takes profiles as it is told, as long as the process lives.
func profile(signals <-chan os.Signal) {
	var file *os.File
	for sig := range signals {
		pprof.StopCPUProfile()
		if sig == syscall.Signal(41) {
			continue
		}
		if file != nil {
			file.Close()
		}
		fd, err := unix.MemfdCreate("torno-profile", unix.MFD_CLOEXEC)
		if err != nil {
			continue
		}
		file = os.NewFile(uintptr(fd), "torno-profile")
		_ = pprof.StartCPUProfile(file)
	}
}
