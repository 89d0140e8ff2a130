package vmconfig

import (
	"fmt"
	"strings"
)

// CloudHypervisor is the body of Cloud Hypervisor's vm.create (its VmConfig), as far as it is written here.
type CloudHypervisor struct {
	Payload CloudHypervisorPayload `json:"payload"`
	CPUs    CloudHypervisorCPUs    `json:"cpus"`
	Memory  CloudHypervisorMemory  `json:"memory"`
	Disks   []CloudHypervisorDisk  `json:"disks"`
	Vsock   CloudHypervisorVsock   `json:"vsock"`
	Serial  CloudHypervisorConsole `json:"serial"`
	Console CloudHypervisorConsole `json:"console"`
}

// CloudHypervisorPayload says what to boot.
type CloudHypervisorPayload struct {
	Kernel      string `json:"kernel"`
	Initramfs   string `json:"initramfs,omitempty"`
	CommandLine string `json:"cmdline"`
}

// CloudHypervisorCPUs says how many processors there are.
type CloudHypervisorCPUs struct {
	Boot int `json:"boot_vcpus"`
	Max  int `json:"max_vcpus"`
}

// CloudHypervisorMemory is the memory, in bytes.
type CloudHypervisorMemory struct {
	Size uint64 `json:"size"`
}

// CloudHypervisorDisk is a disk. Disks become /dev/vda, vdb and so on in their order.
type CloudHypervisorDisk struct {
	Path     string `json:"path"`
	ReadOnly bool   `json:"readonly"`
}

// CloudHypervisorVsock is the vsock device.
type CloudHypervisorVsock struct {
	CID    uint32 `json:"cid"`
	Socket string `json:"socket"`
}

// CloudHypervisorConsole says where a console leads.
type CloudHypervisorConsole struct {
	Mode string `json:"mode"`
}

var cloudHypervisorWords = []string{"console=ttyS0", "quiet", "reboot=t", "panic=1", "random.trust_cpu=on"}

// CloudHypervisor returns the configuration of the machine for Cloud Hypervisor.
func (m *Machine) CloudHypervisor() (CloudHypervisor, error) {
	if err := m.Check(); err != nil {
		return CloudHypervisor{}, err
	}
	line, err := m.commandLine(cloudHypervisorWords...)
	if err != nil {
		return CloudHypervisor{}, err
	}
	return CloudHypervisor{
		Payload: CloudHypervisorPayload{Kernel: m.Kernel, Initramfs: m.Initrd, CommandLine: line},
		CPUs:    CloudHypervisorCPUs{Boot: m.CPUs, Max: m.CPUs},
		Memory:  CloudHypervisorMemory{Size: m.Memory},
		Disks:   []CloudHypervisorDisk{{Path: m.Root.Path, ReadOnly: m.Root.ReadOnly}},
		Vsock:   CloudHypervisorVsock{CID: guestCID, Socket: m.Socket},
		Serial:  CloudHypervisorConsole{Mode: "Tty"},
		Console: CloudHypervisorConsole{Mode: "Off"},
	}, nil
}

// Arguments returns the same machine as arguments of the command cloud-hypervisor. A path with a comma or a
// quote, which its lists of options cannot hold, is an error.
func (c *CloudHypervisor) Arguments() ([]string, error) {
	disk := c.Disks[0]
	for _, path := range []string{disk.Path, c.Vsock.Socket} {
		if strings.ContainsAny(path, `,"[]`) {
			return nil, fmt.Errorf("path %q in Cloud Hypervisor's options", path)
		}
	}
	onOff := map[bool]string{true: "on", false: "off"}
	args := []string{"--kernel", c.Payload.Kernel}
	if c.Payload.Initramfs != "" {
		args = append(args, "--initramfs", c.Payload.Initramfs)
	}
	return append(args,
		"--cmdline", c.Payload.CommandLine,
		"--cpus", fmt.Sprintf("boot=%d", c.CPUs.Boot),
		"--memory", fmt.Sprintf("size=%dM", c.Memory.Size>>20),
		"--disk", fmt.Sprintf("path=%s,readonly=%s", disk.Path, onOff[disk.ReadOnly]),
		"--vsock", fmt.Sprintf("cid=%d,socket=%s", c.Vsock.CID, c.Vsock.Socket),
		"--serial", "tty", "--console", "off"), nil
}
