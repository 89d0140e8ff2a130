package kernel

// A Set is a group of modules that a VM needs for one purpose.
type Set string

// The sets.
const (
	MMIO      Set = "mmio"      // devices of QEMU's microvm machine
	PCI       Set = "pci"       // and of others
	Common    Set = "common"    // every VM
	Container Set = "container" // what container engines need inside, for workloads that are root
)

// A driver is a module, and what it is for. The modules that it needs itself come along.
type driver struct{ module, why string }

// wanted are the drivers of each set. Those that a kernel has inside, or never heard of in the set of
// containers, are left out. Nothing can be loaded once the guest has booted, so what is not here is not to be
// had.
var wanted = map[Set][]driver{
	MMIO: {{"virtio_mmio", "finds the devices"}},
	PCI:  {{"virtio_pci", "finds the devices"}},
	Common: {
		{"vmw_vsock_virtio_transport", "the way to the host"},
		{"virtio_blk", "the disks"},
		{"overlay", "what is written, over a root that is read-only; layers of container images"},
	},
	Container: {
		{"bridge", "the network that containers share"},
		{"veth", "a container's end of it, and the machine's"},
		{"br_netfilter", "rules hold between containers of one bridge, too"},
		{"nf_tables", "iptables, as Debian has it, and nft"},
		{"nft_compat", "rules of iptables in nf_tables, which are the xt_ modules below"},
		{"nft_chain_nat", "translation of addresses: containers leave under the machine's"},
		{"nft_ct", "rules by state of a connection (nft, podman's netavark)"},
		{"nft_masq", "translation by nft rules"},
		{"nft_fib_inet", "rules by where an address is (nft, firewalld)"},
		{"nf_conntrack_netlink", "dockerd forgets connections of containers that are gone"},
		{"xt_MASQUERADE", "docker: containers leave under the machine's address"},
		{"xt_nat", "docker: ports of containers, published on the machine"},
		{"xt_addrtype", "docker: which addresses are the machine's own"},
		{"xt_conntrack", "docker: answers to what a container began"},
		{"xt_tcpudp", "docker: rules by port"},
		{"xt_comment", "rules that say what they are for (podman, Kubernetes)"},
		{"xt_mark", "rules by mark (podman, Kubernetes)"},
		{"xt_set", "rules by set of addresses (docker's and Kubernetes' network policies)"},
		{"ip_set", "those sets"},
		{"ip_tables", "iptables-legacy, which many images have"},
		{"iptable_nat", "its translation of addresses"},
		{"iptable_filter", "its filter"},
		{"ip6_tables", "the same for IPv6"},
		{"ip6table_nat", "its translation of addresses"},
		{"ip6table_filter", "its filter"},
	},
}
