package names

import (
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/net/dns/dnsmessage"

	"torno.internal/protocol"
)

// Limits on what is answered and values in every answer.
const (
	MaxQuery       = 4096 // bytes
	maxAdditionals = 8    // records beside the question, of which one is EDNS's
	ttl            = 60   // seconds
	udpPayload     = 1232 // bytes, as EDNS advertises it (DNS flag day 2020)
)

const (
	rcodeBadVersion = 16 // BADVERS (RFC 6891 §9), its upper bits in the OPT record
	classIN         = dnsmessage.ClassINET
)

// Answer returns the answer to one query, or nil where silence is right: for what is too short to have
// an identifier, too long, or an answer itself. It never fails: what cannot be read gets FORMERR.
func (t *Table) Answer(query []byte) []byte {
	if len(query) > MaxQuery {
		return nil
	}
	var p dnsmessage.Parser
	h, err := p.Start(query)
	if err != nil || h.Response {
		return nil
	}
	r := reply{id: h.ID, recursion: h.RecursionDesired, opcode: h.OpCode}
	if h.OpCode != 0 {
		r.code = dnsmessage.RCodeNotImplemented
		return r.pack()
	}
	if !r.read(&p) {
		return reply{id: h.ID, recursion: h.RecursionDesired, code: dnsmessage.RCodeFormatError}.pack()
	}
	if r.edns && r.version != 0 {
		r.code = rcodeBadVersion
		return r.pack()
	}
	t.resolve(&r)
	return r.pack()
}

// A reply is an answer while it is made.
type reply struct {
	id        uint16
	recursion bool
	opcode    dnsmessage.OpCode
	code      dnsmessage.RCode
	question  []dnsmessage.Question // one, once the query could be read
	edns      bool
	version   uint8 // of EDNS
	body      []dnsmessage.ResourceBody
}

// read takes the question and the EDNS record from the query and reports whether the whole is well
// formed: one question, no answers, at most one OPT record, nothing after the last record.
func (r *reply) read(p *dnsmessage.Parser) bool {
	questions, err := p.AllQuestions()
	if err != nil || len(questions) != 1 {
		return false
	}
	r.question = questions
	if p.SkipAllAnswers() != nil || p.SkipAllAuthorities() != nil {
		return false
	}
	for range maxAdditionals {
		h, err := p.AdditionalHeader()
		if err == dnsmessage.ErrSectionDone {
			return true
		}
		if err != nil || h.Type == dnsmessage.TypeOPT && (r.edns || h.Name.Length != 1) {
			return false
		}
		if h.Type == dnsmessage.TypeOPT {
			r.edns, r.version = true, uint8(h.TTL>>16)
		}
		if p.SkipAdditional() != nil {
			return false
		}
	}
	return false
}

// resolve fills in code and body.
func (t *Table) resolve(r *reply) {
	q := r.question[0]
	asked := strings.ToLower(strings.TrimSuffix(q.Name.String(), "."))
	switch {
	case q.Class != classIN:
		r.code = dnsmessage.RCodeRefused
	case strings.HasSuffix(asked, ".arpa"):
		t.resolveReverse(r, asked, q.Type)
	case q.Type != dnsmessage.TypeA && q.Type != dnsmessage.TypeAAAA:
		// No data of this type, said at once: HTTPS, SVCB, SRV, TXT and MX have clients that would wait.
	default:
		t.resolveForward(r, asked, q.Type)
	}
}

func (t *Table) resolveForward(r *reply, asked string, typ dnsmessage.Type) {
	name, err := protocol.ParseHost(asked)
	if err != nil {
		r.code = dnsmessage.RCodeNameError
		return
	}
	if _, err := netip.ParseAddr(name); err == nil {
		r.code = dnsmessage.RCodeNameError // an address is not a name
		return
	}
	v4, v6 := netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()
	if name != "localhost" && !strings.HasSuffix(name, ".localhost") { // RFC 6761 §6.3
		if v4, v6, err = t.AddrOf(name); err != nil {
			r.code = dnsmessage.RCodeServerFailure
			return
		}
	}
	if typ == dnsmessage.TypeA {
		r.body = append(r.body, &dnsmessage.AResource{A: v4.As4()})
	} else {
		r.body = append(r.body, &dnsmessage.AAAAResource{AAAA: v6.As16()})
	}
}

func (t *Table) resolveReverse(r *reply, asked string, typ dnsmessage.Type) {
	if typ != dnsmessage.TypePTR {
		return
	}
	r.code = dnsmessage.RCodeNameError
	addr, ok := parseReverse(asked)
	if !ok {
		return
	}
	name, ok := t.NameOf(addr)
	if !ok {
		return
	}
	if ptr, err := dnsmessage.NewName(name + "."); err == nil {
		r.code = dnsmessage.RCodeSuccess
		r.body = append(r.body, &dnsmessage.PTRResource{PTR: ptr})
	}
}

// parseReverse reads a name below in-addr.arpa (RFC 1035 §3.5) or ip6.arpa (RFC 3596 §2.5).
func parseReverse(name string) (netip.Addr, bool) {
	if rest, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		labels := strings.Split(rest, ".")
		if len(labels) != 4 {
			return netip.Addr{}, false
		}
		addr, err := netip.ParseAddr(labels[3] + "." + labels[2] + "." + labels[1] + "." + labels[0])
		return addr, err == nil
	}
	rest, ok := strings.CutSuffix(name, ".ip6.arpa")
	labels := strings.Split(rest, ".")
	if !ok || len(labels) != 32 {
		return netip.Addr{}, false
	}
	var a [16]byte
	for i, l := range labels {
		nibble, err := strconv.ParseUint(l, 16, 4)
		if err != nil || len(l) != 1 {
			return netip.Addr{}, false
		}
		a[15-i/2] |= byte(nibble) << (4 * (i % 2))
	}
	return netip.AddrFrom16(a), true
}

// pack encodes the reply. All that it holds is bounded by the query's own bounds, so it always fits in
// 512 bytes and is never truncated.
func (r reply) pack() []byte {
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{
		ID: r.id, Response: true, OpCode: r.opcode, RecursionDesired: r.recursion, RecursionAvailable: true,
		RCode: r.code & 0xf,
	})
	b.EnableCompression()
	if b.StartQuestions() != nil {
		return nil
	}
	for _, q := range r.question {
		if b.Question(q) != nil {
			return nil
		}
	}
	if b.StartAnswers() != nil {
		return nil
	}
	for _, body := range r.body {
		if addAnswer(&b, dnsmessage.ResourceHeader{Name: r.question[0].Name, Class: classIN, TTL: ttl}, body) != nil {
			return nil
		}
	}
	if r.edns {
		var h dnsmessage.ResourceHeader
		if h.SetEDNS0(udpPayload, r.code, false) != nil || b.StartAdditionals() != nil ||
			b.OPTResource(h, dnsmessage.OPTResource{}) != nil {
			return nil
		}
	}
	answer, err := b.Finish()
	if err != nil {
		return nil
	}
	return answer
}

func addAnswer(b *dnsmessage.Builder, h dnsmessage.ResourceHeader, body dnsmessage.ResourceBody) error {
	switch body := body.(type) {
	case *dnsmessage.AResource:
		return b.AResource(h, *body)
	case *dnsmessage.AAAAResource:
		return b.AAAAResource(h, *body)
	case *dnsmessage.PTRResource:
		return b.PTRResource(h, *body)
	}
	return nil
}
