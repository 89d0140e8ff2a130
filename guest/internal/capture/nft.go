package capture

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

const nftTable = "torno"

// Where chains hook in: destination NAT (NF_IP_PRI_NAT_DST), and filters (NF_IP_PRI_FILTER), which see the
// destination that it made.
const (
	natPriority    = -100
	filterPriority = 0
)

// redirect installs one nf_tables table in the own network namespace whose chain "redirect" leads every
// TCP connection that would leave over lo to the local port, but those to 127.0.0.0/8 and ::1, which
// stay what they are, and those to port 53, which the names responder listens on itself. Other UDP
// goes to the discard port, where nothing listens, so that its sender learns at once that it is closed:
// for an address that is local by route alone the kernel could not send the ICMP error.
//
// With a user it does so for that user's connections alone, whichever way they would leave, leads the user's
// port 53 to where names are answered, and has a chain "drop" for what the user sends elsewhere all the same.
func redirect(port uint16, user *User) error {
	n, err := dialNetlink(unix.NETLINK_NETFILTER)
	if err != nil {
		return nftError(err)
	}
	defer n.Close()
	chains := []chain{{"redirect", "nat", natPriority, rules(port)}}
	if user != nil {
		chains = []chain{{"redirect", "nat", natPriority, userRules(port, *user)}, {"drop", "filter", filterPriority, dropRules(*user)}}
	}
	batch := []message{
		{unix.NFNL_MSG_BATCH_BEGIN, 0, nfgen(unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES), "batch"},
		// Made first, so that there is one to delete: what an earlier guest left here goes.
		{nftType(unix.NFT_MSG_NEWTABLE), unix.NLM_F_ACK | unix.NLM_F_CREATE, nftTableBody(), "nf_tables table"},
		{nftType(unix.NFT_MSG_DELTABLE), unix.NLM_F_ACK, nftTableBody(), "nf_tables table left over"},
		{nftType(unix.NFT_MSG_NEWTABLE), unix.NLM_F_ACK | unix.NLM_F_CREATE, nftTableBody(), "nf_tables table"},
	}
	for _, c := range chains {
		batch = append(batch, message{nftType(unix.NFT_MSG_NEWCHAIN), unix.NLM_F_ACK | unix.NLM_F_CREATE, nftChainBody(c), "nf_tables chain " + c.name})
		for i, expressions := range c.rules {
			batch = append(batch, message{nftType(unix.NFT_MSG_NEWRULE),
				unix.NLM_F_ACK | unix.NLM_F_CREATE | unix.NLM_F_APPEND, nftRuleBody(c.name, expressions), fmt.Sprintf("nf_tables rule %d of %s", i, c.name)})
		}
	}
	batch = append(batch, message{unix.NFNL_MSG_BATCH_END, 0, nfgen(unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES), "batch"})
	if err := n.do(batch); err != nil {
		return nftError(err)
	}
	return nil
}

// A chain hooks into what this machine sends.
type chain struct {
	name, kind string
	priority   int32
	rules      [][]expression
}

// A HintError carries what people can do about the error in it.
type HintError struct {
	Err  error
	Hint string
}

func (e *HintError) Error() string { return e.Err.Error() }

func (e *HintError) Unwrap() error { return e.Err }

func nftError(err error) error {
	hint := "load nf_tables, nft_chain_nat and nft_redir on the host (modprobe nf_tables nft_chain_nat nft_redir), or use --isolation microvm"
	if errors.Is(err, unix.EPERM) {
		hint = "torno-guest must own its network namespace (CAP_NET_ADMIN there)"
	}
	return &HintError{fmt.Errorf("redirecting connections: %w", err), hint}
}

const discardPort = 9

// rules returns the rules that catch everybody, each a list of expressions.
func rules(port uint16) [][]expression {
	notLoopback := binary.NativeEndian.AppendUint32(nil, loopback)
	return [][]expression{
		{meta(unix.NFT_META_OIF), cmp(unix.NFT_CMP_NEQ, notLoopback), verdict(accept)},
		append(toLoopback4(), verdict(accept)),
		append(toLoopback6(), verdict(accept)),
		append(toNames(unix.IPPROTO_TCP), verdict(accept)),
		append(toNames(unix.IPPROTO_UDP), verdict(accept)),
		{meta(unix.NFT_META_L4PROTO), equal(unix.IPPROTO_TCP), load(port), redir()},
		{meta(unix.NFT_META_L4PROTO), equal(unix.IPPROTO_UDP), load(discardPort), redir()},
	}
}

// userRules catch one user. Names are asked of us even where a resolver of the machine's listens on a loopback
// address.
func userRules(port uint16, user User) [][]expression {
	return of(user, [][]expression{
		append(toNames(unix.IPPROTO_TCP), load(user.Names), redir()),
		append(toNames(unix.IPPROTO_UDP), load(user.Names), redir()),
		append(toLoopback4(), verdict(accept)),
		append(toLoopback6(), verdict(accept)),
		{meta(unix.NFT_META_L4PROTO), equal(unix.IPPROTO_TCP), load(port), redir()},
		{meta(unix.NFT_META_L4PROTO), equal(unix.IPPROTO_UDP), load(discardPort), redir()},
	})
}

// dropRules drop what one user sends that was not redirected: other protocols, and connections that are older
// than the redirect.
func dropRules(user User) [][]expression {
	return of(user, [][]expression{
		append(toLoopback4(), verdict(accept)),
		append(toLoopback6(), verdict(accept)),
		{verdict(drop)},
	})
}

// of makes rules hold for what one user sends. A packet without a socket is nobody's.
func of(user User, rules [][]expression) [][]expression {
	for i := range rules {
		is := []expression{meta(unix.NFT_META_SKUID), cmp(unix.NFT_CMP_EQ, binary.NativeEndian.AppendUint32(nil, user.ID))}
		rules[i] = append(is, rules[i]...)
	}
	return rules
}

func toLoopback4() []expression {
	const daddr = 16 // offset in the header
	return []expression{meta(unix.NFT_META_NFPROTO), equal(unix.NFPROTO_IPV4), payload(unix.NFT_PAYLOAD_NETWORK_HEADER, daddr, 1), equal(127)}
}

func toLoopback6() []expression {
	const daddr = 24
	ip6Loopback := append(make([]byte, 15), 1)
	return []expression{meta(unix.NFT_META_NFPROTO), equal(unix.NFPROTO_IPV6), payload(unix.NFT_PAYLOAD_NETWORK_HEADER, daddr, 16), equal(ip6Loopback...)}
}

func toNames(protocol byte) []expression {
	const dport, domain = 2, 53 // offset in the header, and the port
	return []expression{
		meta(unix.NFT_META_L4PROTO), equal(protocol), payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, dport, 2), equal(0, domain),
	}
}

// An expression is one step of a rule: its name and its attributes. All work on register 1.
type expression struct {
	name string
	data []byte
}

const register = unix.NFT_REG_1

func meta(key uint32) expression {
	return expression{"meta", be32(be32(nil, unix.NFTA_META_KEY, key), unix.NFTA_META_DREG, register)}
}

func payload(base, offset, length uint32) expression {
	b := be32(nil, unix.NFTA_PAYLOAD_DREG, register)
	b = be32(b, unix.NFTA_PAYLOAD_BASE, base)
	b = be32(b, unix.NFTA_PAYLOAD_OFFSET, offset)
	return expression{"payload", be32(b, unix.NFTA_PAYLOAD_LEN, length)}
}

func equal(value ...byte) expression { return cmp(unix.NFT_CMP_EQ, value) }

func cmp(op uint32, value []byte) expression {
	b := be32(nil, unix.NFTA_CMP_SREG, register)
	b = be32(b, unix.NFTA_CMP_OP, op)
	return expression{"cmp", nested(b, unix.NFTA_CMP_DATA, attr(nil, unix.NFTA_DATA_VALUE, value))}
}

// Verdicts (linux/netfilter.h).
const (
	drop   = 0
	accept = 1
)

func verdict(code uint32) expression {
	data := nested(nil, unix.NFTA_DATA_VERDICT, be32(nil, unix.NFTA_VERDICT_CODE, code))
	b := be32(nil, unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_VERDICT)
	return expression{"immediate", nested(b, unix.NFTA_IMMEDIATE_DATA, data)}
}

func load(port uint16) expression {
	value := attr(nil, unix.NFTA_DATA_VALUE, binary.BigEndian.AppendUint16(nil, port))
	b := be32(nil, unix.NFTA_IMMEDIATE_DREG, register)
	return expression{"immediate", nested(b, unix.NFTA_IMMEDIATE_DATA, value)}
}

func redir() expression {
	return expression{"redir", be32(nil, unix.NFTA_REDIR_REG_PROTO_MIN, register)}
}

func nftType(t uint16) uint16 { return unix.NFNL_SUBSYS_NFTABLES<<8 | t }

// nfgen is struct nfgenmsg: family, version, resource id in network order.
func nfgen(family byte, resource uint16) []byte {
	return binary.BigEndian.AppendUint16([]byte{family, 0}, resource)
}

func nftTableBody() []byte {
	return text(nfgen(unix.NFPROTO_INET, 0), unix.NFTA_TABLE_NAME, nftTable)
}

func nftChainBody(c chain) []byte {
	hook := be32(nil, unix.NFTA_HOOK_HOOKNUM, unix.NF_INET_LOCAL_OUT)
	hook = be32(hook, unix.NFTA_HOOK_PRIORITY, uint32(c.priority))
	b := text(nfgen(unix.NFPROTO_INET, 0), unix.NFTA_CHAIN_TABLE, nftTable)
	b = text(b, unix.NFTA_CHAIN_NAME, c.name)
	b = nested(b, unix.NFTA_CHAIN_HOOK, hook)
	return text(b, unix.NFTA_CHAIN_TYPE, c.kind)
}

func nftRuleBody(chain string, expressions []expression) []byte {
	var list []byte
	for _, e := range expressions {
		element := text(nil, unix.NFTA_EXPR_NAME, e.name)
		element = nested(element, unix.NFTA_EXPR_DATA, e.data)
		list = nested(list, unix.NFTA_LIST_ELEM, element)
	}
	b := text(nfgen(unix.NFPROTO_INET, 0), unix.NFTA_RULE_TABLE, nftTable)
	b = text(b, unix.NFTA_RULE_CHAIN, chain)
	return nested(b, unix.NFTA_RULE_EXPRESSIONS, list)
}
