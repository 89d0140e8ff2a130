package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"torno.internal/guest/internal/boot"
	"torno.internal/protocol/transport"
)

func TestParse(t *testing.T) {
	host := transport.Addr{Network: transport.VSOCK, CID: 2, Port: 618}
	for _, test := range []struct {
		args     []string
		attached bool
		want     boot.Config
	}{
		{[]string{"-broker", "vsock://2:618"}, false, boot.Config{Broker: host, UID: 1000}},
		{[]string{"--broker=vsock://2:618", "--wait", "-run", "unix:///r"}, false,
			boot.Config{Broker: host, Run: transport.Addr{Network: transport.Unix, Path: "/r"}, UID: 1000, Words: boot.Words{Wait: true}}},
		{[]string{"-broker", "vsock://2:618", "-uid", "1234"}, true, boot.Config{Broker: host, UID: 1234}},
	} {
		got, err := parse(test.args, test.attached)
		got.Log, got.Version = nil, ""
		if diff := cmp.Diff(test.want, got); diff != "" || err != nil {
			t.Errorf("%q: %v (-want +got):\n%s", test.args, err, diff)
		}
	}
	for _, args := range [][]string{
		{}, {"-broker", ""}, {"-broker", "vsock://1:618"}, {"-broker", "tcp://h:1"}, {"-broker", "vsock://2:618", "-run", "r"}, {"-nonsense"},
		{"-broker", "vsock://2:618", "-uid", "-1"}, {"-broker", "vsock://2:618", "-uid", "4294967296"}, {"-broker", "vsock://2:618", "-uid", "root"},
	} {
		if config, err := parse(args, false); err == nil {
			t.Errorf("%q passes: %+v", args, config)
		}
	}
}
