// Package names answers every DNS question that the workload asks, inside the guest: each valid name
// gets a synthetic address of its own, and the address leads back to the name (RFC 1035, RFC 6891,
// RFC 7766). Nothing ever leaves the guest as DNS, so labels are no channel out; the broker resolves a
// name only once an exchange with it is allowed.
package names

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"torno.internal/protocol"
)

// ErrExhausted means that protocol.MaxNames names have addresses. None is ever recycled: a client that
// cached an address would reach another host with its credential.
var ErrExhausted = errors.New("no synthetic addresses are left")

// A Table gives out synthetic addresses and remembers them for the session's life. It is safe for
// concurrent use.
type Table struct {
	base4  uint32
	base6  netip.Prefix
	limit  int
	random [32]byte // keys the hash that IPv6 addresses are made of

	mu     sync.RWMutex
	names  []string              // by offset from base4
	byName map[string]int        // offset
	by6    map[netip.Addr]string // IPv6 address to name
}

// New returns an empty table that takes IPv4 addresses from prefix4 one after another and IPv6
// addresses from all over prefix6.
func New(prefix4, prefix6 netip.Prefix) (*Table, error) {
	prefix4, prefix6 = prefix4.Masked(), prefix6.Masked()
	if !prefix4.IsValid() || !prefix4.Addr().Is4() || prefix4.Bits() > 30 {
		return nil, fmt.Errorf("prefix %q of synthetic IPv4 addresses: want an IPv4 prefix of at most 30 bits", prefix4)
	}
	if !prefix6.IsValid() || !prefix6.Addr().Is6() || prefix6.Bits() > 64 {
		return nil, fmt.Errorf("prefix %q of synthetic IPv6 addresses: want an IPv6 prefix of at most 64 bits", prefix6)
	}
	t := &Table{
		base4:  toUint32(prefix4.Addr()) + 1, // the network's own address is nobody's
		base6:  prefix6,
		limit:  min(protocol.MaxNames, 1<<(32-prefix4.Bits())-2),
		byName: map[string]int{},
		by6:    map[netip.Addr]string{},
	}
	rand.Read(t.random[:])
	return t, nil
}

// AddrOf returns the addresses of name, which is as protocol.ParseHost returns it, and gives it some
// if it has none yet. The error is ErrExhausted.
func (t *Table) AddrOf(name string) (v4, v6 netip.Addr, err error) {
	t.mu.RLock()
	offset, ok := t.byName[name]
	t.mu.RUnlock()
	if !ok {
		if offset, err = t.add(name); err != nil {
			return netip.Addr{}, netip.Addr{}, err
		}
	}
	return t.addr4(offset), t.addr6(name), nil
}

func (t *Table) add(name string) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if offset, ok := t.byName[name]; ok {
		return offset, nil
	}
	if len(t.names) >= t.limit {
		return 0, ErrExhausted
	}
	offset := len(t.names)
	t.names = append(t.names, name)
	t.byName[name] = offset
	t.by6[t.addr6(name)] = name
	return offset, nil
}

// NameOf returns the name that addr was given to.
func (t *Table) NameOf(addr netip.Addr) (string, bool) {
	addr = addr.Unmap().WithZone("")
	t.mu.RLock()
	defer t.mu.RUnlock()
	if addr.Is6() {
		name, ok := t.by6[addr]
		return name, ok
	}
	if !addr.Is4() {
		return "", false
	}
	offset := int64(toUint32(addr)) - int64(t.base4)
	if offset < 0 || offset >= int64(len(t.names)) {
		return "", false
	}
	return t.names[offset], true
}

func (t *Table) addr4(offset int) netip.Addr {
	v := t.base4 + uint32(offset)
	return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
}

// addr6 hashes the name into the prefix's last 64 bits, with a key so that nobody can search for two
// names with one address.
func (t *Table) addr6(name string) netip.Addr {
	mac := hmac.New(sha256.New, t.random[:])
	mac.Write([]byte(name))
	a := t.base6.Addr().As16()
	copy(a[8:], mac.Sum(nil))
	return netip.AddrFrom16(a)
}

func toUint32(a netip.Addr) uint32 {
	b := a.As4()
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}
