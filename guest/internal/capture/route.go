package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// Where the capture's routes stand. The rule comes after the kernel's own (local 0, main 32766), so
// connected networks, such as a container bridge, win over the capture.
const (
	routeTable   = 100
	rulePriority = 40000
	loopback     = 1 // index of lo in every network namespace
)

// Up brings lo up. It needs CAP_NET_ADMIN over the network namespace, as all of this package does.
func Up() error {
	n, err := dialNetlink(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("opening rtnetlink: %w", err)
	}
	defer n.Close()
	// struct ifinfomsg: family, pad, type, index, flags, change.
	body := make([]byte, 0, unix.SizeofIfInfomsg)
	body = append(body, unix.AF_UNSPEC, 0, 0, 0)
	body = append32(body, loopback, unix.IFF_UP, unix.IFF_UP)
	return n.do([]message{{unix.RTM_NEWLINK, unix.NLM_F_ACK, body, "bringing lo up"}})
}

// addRoutes makes every address lead to lo: the plan's own addresses, from which clients then connect,
// rules late in the list for each family, and in their table a local default route. An address that is
// there already is not an error.
func addRoutes(plan Plan) error {
	n, err := dialNetlink(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("opening rtnetlink: %w", err)
	}
	defer n.Close()
	for _, addr := range plan.addresses() {
		for _, m := range routeMessages(addr, plan.User) {
			if err := n.do([]message{m}); err != nil && !errors.Is(err, unix.EEXIST) {
				return err
			}
		}
	}
	return nil
}

func routeMessages(addr netip.Addr, user *User) []message {
	family := byte(unix.AF_INET)
	if addr.Is6() {
		family = unix.AF_INET6
	}
	const create = unix.NLM_F_ACK | unix.NLM_F_CREATE | unix.NLM_F_EXCL

	// struct ifaddrmsg: family, prefix length, flags, scope, index.
	address := []byte{family, byte(addr.BitLen()), unix.IFA_F_PERMANENT | unix.IFA_F_NODAD, unix.RT_SCOPE_UNIVERSE}
	address = append32(address, loopback)
	address = attr(address, unix.IFA_LOCAL, addr.AsSlice())
	address = attr(address, unix.IFA_ADDRESS, addr.AsSlice())

	// struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags.
	route := []byte{family, 0, 0, 0, routeTable, unix.RTPROT_STATIC, unix.RT_SCOPE_HOST, unix.RTN_LOCAL}
	route = append32(route, 0)
	route = host32(route, unix.RTA_OIF, loopback)
	route = attr(route, unix.RTA_PREFSRC, addr.AsSlice())

	messages := []message{
		{unix.RTM_NEWADDR, create, address, fmt.Sprintf("adding address %v", addr)},
		{unix.RTM_NEWROUTE, create, route, fmt.Sprintf("adding the local default route from %v", addr)},
	}
	rules := routeRules
	if user != nil { // what has another way there is redirected from it
		rules = []rule{{action: unix.FR_ACT_TO_TBL, user: user}}
	}
	for i, r := range rules {
		messages = append(messages, message{unix.RTM_NEWRULE, create, r.body(family, rulePriority+uint32(i)), fmt.Sprintf("adding rule %d for %v", i, addr)})
	}
	return messages
}

// A rule says which packets find their route in routeTable, or none.
type rule struct {
	protocol uint8  // 0: any
	port     uint16 // destination; 0: any
	action   uint8
	user     *User // nil: anybody
}

// routeRules stand in this order. Of UDP, names are answered and nothing else has a way: a program learns at
// once that there is no QUIC. The kernel could not tell it later, for it sends no ICMP from addresses that
// are not in table local.
var routeRules = []rule{
	{unix.IPPROTO_UDP, 53, unix.FR_ACT_TO_TBL, nil},
	{unix.IPPROTO_UDP, 0, unix.FR_ACT_UNREACHABLE, nil},
	{0, 0, unix.FR_ACT_TO_TBL, nil},
}

// body returns struct fib_rule_hdr, which is family, dst_len, src_len, tos, table, two reserved, action,
// flags, and its attributes.
func (r rule) body(family byte, priority uint32) []byte {
	table := uint8(0)
	if r.action == unix.FR_ACT_TO_TBL {
		table = routeTable
	}
	b := []byte{family, 0, 0, 0, table, 0, 0, r.action}
	b = append32(b, 0)
	b = host32(b, unix.FRA_PRIORITY, priority)
	if table != 0 {
		b = host32(b, unix.FRA_TABLE, uint32(table))
	}
	if r.protocol != 0 {
		b = attr(b, unix.FRA_IP_PROTO, []byte{r.protocol})
	}
	if r.port != 0 {
		ports := binary.NativeEndian.AppendUint16(nil, r.port)
		b = attr(b, unix.FRA_DPORT_RANGE, binary.NativeEndian.AppendUint16(ports, r.port))
	}
	if r.user != nil {
		ids := binary.NativeEndian.AppendUint32(nil, r.user.ID)
		b = attr(b, unix.FRA_UID_RANGE, binary.NativeEndian.AppendUint32(ids, r.user.ID))
	}
	return b
}

func append32(b []byte, values ...uint32) []byte {
	for _, v := range values {
		b = binary.NativeEndian.AppendUint32(b, v)
	}
	return b
}

// sysctls are switches of the network namespace itself; a missing one is not needed.
var sysctls = []struct{ path, value string }{
	{"/proc/sys/net/ipv6/conf/lo/disable_ipv6", "0"},
	// Port 53 is the names responder's, and no user's without privilege.
	{"/proc/sys/net/ipv4/ip_unprivileged_port_start", "1024"},
	// The kernel would answer ping for addresses that lead to lo, and agents would conclude that the
	// network is up.
	{"/proc/sys/net/ipv4/icmp_echo_ignore_all", "1"},
	{"/proc/sys/net/ipv6/icmp/echo_ignore_all", "1"},
}

func setSysctls() error {
	for _, s := range sysctls {
		err := os.WriteFile(s.path, []byte(s.value), 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}
