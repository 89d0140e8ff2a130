package namespace

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// ProbeCommand is the hidden command by which torno runs Probe, in the guest's place.
const ProbeCommand = "namespace-probe"

// Try makes namespaces as for a guest, looks from inside whether the kernel has what one needs there, and
// takes them down again. Errors that a person can mend are *Error.
func Try(ctx context.Context, ids IDs) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	var said bytes.Buffer // written until Wait returns
	p, err := Start(ctx, Spec{Guest: self, Args: []string{ProbeCommand}, IDs: ids, Log: &said})
	if err != nil {
		return err
	}
	code, err := p.Wait()
	if err != nil || code == 0 {
		return err
	}
	problem, hint, _ := strings.Cut(strings.TrimSpace(said.String()), "\n")
	return hinted(hint, errors.New(problem))
}

// Probe runs inside: it prints what is missing, and a hint on a second line, and returns the exit status.
func Probe() int {
	for _, need := range []struct {
		what string
		try  func() error
		hint string
	}{
		{"nf_tables, which captures connections", tryNFTables, "modprobe nf_tables nft_redir nft_nat, as root"},
		{"a pseudo-terminal", tryTerminal, "is devpts there? mount | grep devpts"},
	} {
		if err := need.try(); err != nil {
			fmt.Printf("%s: %v\n%s\n", need.what, err, need.hint)
			return 1
		}
	}
	return 0
}

// NFT_MSG_GETGEN of linux/netfilter/nf_tables.h, in nfnetlink's subsystem.
const getGeneration = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETGEN

// tryNFTables asks nf_tables for the generation of its rules, which changes nothing.
func tryNFTables() error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	const size = unix.SizeofNlMsghdr + 4 // struct nfgenmsg is all zeros
	msg := make([]byte, size)
	binary.NativeEndian.PutUint32(msg[0:], size)
	binary.NativeEndian.PutUint16(msg[4:], getGeneration)
	binary.NativeEndian.PutUint16(msg[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	if err := unix.Sendto(fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5}); err != nil {
		return err
	}
	reply := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, reply, 0)
	if err != nil {
		return err
	}
	if n < unix.SizeofNlMsghdr+4 {
		return errors.New("short answer")
	}
	if binary.NativeEndian.Uint16(reply[4:]) == unix.NLMSG_ERROR {
		if errno := -int32(binary.NativeEndian.Uint32(reply[unix.SizeofNlMsghdr:])); errno != 0 {
			return unix.Errno(errno)
		}
	}
	return nil
}

func tryTerminal() error {
	f, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	return f.Close()
}
