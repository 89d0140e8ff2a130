//go:build !amd64

package vmm

func tscKHz() uint64 { return 0 }
