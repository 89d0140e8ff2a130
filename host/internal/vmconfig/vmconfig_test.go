package vmconfig

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func machine() *Machine {
	return &Machine{
		Kernel: "/k/vmlinux", Initrd: "/k/initrd", Root: Disk{"/i/root.img", true}, CPUs: 2, Memory: 512 << 20, Socket: "/run/vm/7/v",
		Words: []string{"torno.broker=vsock://2:618", "torno.root=vda"},
	}
}

const wantFirecracker = `{
  "boot-source": {
    "kernel_image_path": "/k/vmlinux",
    "initrd_path": "/k/initrd",
    "boot_args": "console=ttyS0 quiet reboot=k panic=1 pci=off random.trust_cpu=on torno.broker=vsock://2:618 torno.root=vda"
  },
  "drives": [
    {
      "drive_id": "root",
      "path_on_host": "/i/root.img",
      "is_root_device": false,
      "is_read_only": true
    }
  ],
  "machine-config": {
    "vcpu_count": 2,
    "mem_size_mib": 512
  },
  "vsock": {
    "guest_cid": 3,
    "uds_path": "/run/vm/7/v"
  },
  "entropy": {}
}`

func TestFirecracker(t *testing.T) {
	c, err := machine().Firecracker()
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.MarshalIndent(c, "", "  ")
	if diff := cmp.Diff(wantFirecracker, string(got)); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

const wantCloudHypervisor = `{
  "payload": {
    "kernel": "/k/vmlinux",
    "initramfs": "/k/initrd",
    "cmdline": "console=ttyS0 quiet reboot=t panic=1 random.trust_cpu=on torno.broker=vsock://2:618 torno.root=vda"
  },
  "cpus": {
    "boot_vcpus": 2,
    "max_vcpus": 2
  },
  "memory": {
    "size": 536870912
  },
  "disks": [
    {
      "path": "/i/root.img",
      "readonly": true
    }
  ],
  "vsock": {
    "cid": 3,
    "socket": "/run/vm/7/v"
  },
  "serial": {
    "mode": "Tty"
  },
  "console": {
    "mode": "Off"
  }
}`

func TestCloudHypervisor(t *testing.T) {
	c, err := machine().CloudHypervisor()
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.MarshalIndent(c, "", "  ")
	if diff := cmp.Diff(wantCloudHypervisor, string(got)); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	args, err := c.Arguments()
	want := []string{
		"--kernel", "/k/vmlinux", "--initramfs", "/k/initrd", "--cmdline", c.Payload.CommandLine, "--cpus", "boot=2", "--memory", "size=512M",
		"--disk", "path=/i/root.img,readonly=on", "--vsock", "cid=3,socket=/run/vm/7/v", "--serial", "tty", "--console", "off",
	}
	if diff := cmp.Diff(want, args); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	m := machine()
	m.Initrd, m.Root.ReadOnly = "", false
	c, err = m.CloudHypervisor()
	if err != nil {
		t.Fatal(err)
	}
	if args, err := c.Arguments(); err != nil || strings.Contains(strings.Join(args, " "), "initramfs") || args[9] != "path=/i/root.img,readonly=off" {
		t.Errorf("without initramfs: %q, %v", args, err)
	}
	c.Vsock.Socket = "/run/a,b"
	if args, err := c.Arguments(); err == nil {
		t.Errorf("a comma passes: %q", args)
	}
}

func TestCheckRefuses(t *testing.T) {
	for name, change := range map[string]func(*Machine){
		"no kernel":         func(m *Machine) { m.Kernel = "" },
		"no root":           func(m *Machine) { m.Root.Path = "" },
		"no socket":         func(m *Machine) { m.Socket = "" },
		"relative kernel":   func(m *Machine) { m.Kernel = "vmlinux" },
		"odd socket":        func(m *Machine) { m.Socket = "./v" },
		"dots":              func(m *Machine) { m.Socket = "/run/../v" },
		"no processors":     func(m *Machine) { m.CPUs = 0 },
		"half a MiB":        func(m *Machine) { m.Memory = 1<<20 + 1<<19 },
		"two words":         func(m *Machine) { m.Words = []string{"a init=/bin/sh"} },
		"quoted":            func(m *Machine) { m.Words = []string{`a="b`} },
		"line break":        func(m *Machine) { m.Words = []string{"a\nb"} },
		"empty word":        func(m *Machine) { m.Words = []string{""} },
		"much too long":     func(m *Machine) { m.Words = []string{strings.Repeat("x", maxCommandLine)} },
		"not of this world": func(m *Machine) { m.Words = []string{"ä"} },
	} {
		m := machine()
		change(m)
		if c, err := m.Firecracker(); err == nil || !cmp.Equal(c, Firecracker{}) {
			t.Errorf("%s: Firecracker gets %+v, %v", name, c, err)
		}
		if c, err := m.CloudHypervisor(); err == nil || !cmp.Equal(c, CloudHypervisor{}) {
			t.Errorf("%s: Cloud Hypervisor gets %+v, %v", name, c, err)
		}
	}
}
