package vmconfig

// Firecracker is the file that "firecracker --config-file" reads, as far as it is written here.
type Firecracker struct {
	BootSource FirecrackerBoot    `json:"boot-source"`
	Drives     []FirecrackerDrive `json:"drives"`
	Machine    FirecrackerMachine `json:"machine-config"`
	Vsock      FirecrackerVsock   `json:"vsock"`
	Entropy    struct{}           `json:"entropy"` // a virtio-rng device with defaults
}

// FirecrackerBoot says what to boot.
type FirecrackerBoot struct {
	Kernel   string `json:"kernel_image_path"`
	Initrd   string `json:"initrd_path,omitempty"`
	BootArgs string `json:"boot_args"`
}

// FirecrackerDrive is a disk. Drives become /dev/vda, vdb and so on in their order.
type FirecrackerDrive struct {
	ID       string `json:"drive_id"`
	Path     string `json:"path_on_host"`
	IsRoot   bool   `json:"is_root_device"` // Firecracker would add root=/dev/vda to the command line
	ReadOnly bool   `json:"is_read_only"`
}

// FirecrackerMachine says how large the machine is.
type FirecrackerMachine struct {
	CPUs   int    `json:"vcpu_count"`
	Memory uint64 `json:"mem_size_mib"`
}

// FirecrackerVsock is the vsock device. Firecracker makes the socket at Path when it starts and refuses to
// start where something is there already.
type FirecrackerVsock struct {
	CID  uint32 `json:"guest_cid"`
	Path string `json:"uds_path"`
}

// firecrackerWords are what Firecracker's own documentation boots with: it has a serial line, and a keyboard
// controller for the sake of its reset alone.
var firecrackerWords = []string{"console=ttyS0", "quiet", "reboot=k", "panic=1", "pci=off", "random.trust_cpu=on"}

// Firecracker returns the configuration of the machine for Firecracker.
func (m *Machine) Firecracker() (Firecracker, error) {
	if err := m.Check(); err != nil {
		return Firecracker{}, err
	}
	line, err := m.commandLine(firecrackerWords...)
	if err != nil {
		return Firecracker{}, err
	}
	return Firecracker{
		BootSource: FirecrackerBoot{Kernel: m.Kernel, Initrd: m.Initrd, BootArgs: line},
		Drives:     []FirecrackerDrive{{ID: "root", Path: m.Root.Path, ReadOnly: m.Root.ReadOnly}},
		Machine:    FirecrackerMachine{CPUs: m.CPUs, Memory: m.Memory >> 20},
		Vsock:      FirecrackerVsock{CID: guestCID, Path: m.Socket},
	}, nil
}
