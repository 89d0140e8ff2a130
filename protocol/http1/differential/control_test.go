package differential

import (
	"slices"
	"strings"
	"testing"
)

// TestOraclesDiffer is the control of the others: among the inputs that we refuse there are many which two
// oracles accept and read as different requests. Who lets these through can be told two things at once.
func TestOraclesDiffer(t *testing.T) {
	b := newBench(t, oracles(t))
	mutations := slices.Concat(framingMutations, requestMutations)
	b.each(min(*inputs, 4000), func(i uint64) {
		wire, _ := newInput(*seed, i, newRequest, mutations)
		if messages, err := understand(wire + marker); err != nil && len(messages) == 0 && b.differ(wire+marker) {
			b.count(b.refused, mutations[i%uint64(len(mutations))].class)
		}
	})
	total := 0
	for _, n := range b.refused {
		total += n
	}
	t.Logf("%d of %d inputs are refused by us and read as different requests by two oracles: %v", total, b.inputs.Load(), b.refused)
	if uint64(total) < min(*inputs, 4000)/50 || len(b.refused) < 10 {
		t.Errorf("only %d inputs in %d classes set oracles apart: the generator has no teeth", total, len(b.refused))
	}
}

// differ reports whether two oracles read different requests out of wire.
func (b *bench) differ(wire string) bool {
	var first *seen
	for _, o := range b.oracles {
		got, err := o.ask(wire)
		if err != nil {
			b.fail("ours", "%v", err)
			return false
		}
		if len(got) == 0 || got[0].seen == nil {
			continue
		}
		s := got[0].seen
		if first != nil && (s.Method != first.Method || strings.TrimLeft(s.Target, "/") != strings.TrimLeft(first.Target, "/") || s.Content != first.Content || canonical(s.Host) != canonical(first.Host)) {
			return true
		}
		first = s
	}
	return false
}
