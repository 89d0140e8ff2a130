//go:build !amd64

package vmm

func beginTSC() {}

func tscKHz() uint64 { return 0 }
