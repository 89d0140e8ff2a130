// Package differential holds tests alone: it asks real servers and clients what they make of messages
// that package http1 accepts, and of those that it writes, and fails where they differ from it.
package differential

import (
	"flag"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"torno.internal/protocol/http1"
)

var (
	inputs = flag.Uint64("differential.inputs", 12000, "messages of either kind to generate")
	seed   = flag.Uint64("differential.seed", 1, "seed to generate them from")
)

// marker is the request that follows every input. Whoever reads an input's end elsewhere misreads it.
const marker = "GET /marker HTTP/1.1\r\nHost: marker.example\r\nConnection: close\r\n\r\n"

// TestRequests generates requests and holds each to three properties. We refuse it, or what we forward
// is read by every oracle as the one request that we understood. Where an oracle accepts what we accept,
// it reads the same. Our reader stops exactly at each request's end.
func TestRequests(t *testing.T) {
	b := newBench(t, oracles(t))
	mutations := slices.Concat(framingMutations, requestMutations)
	b.each(*inputs, func(i uint64) {
		wire, class := newInput(*seed, i, newRequest, mutations)
		b.checkRequest(class, wire)
	})
	written := corpus(t, "testdata/requests.txt")
	b.each(uint64(len(written)), func(i uint64) { b.checkRequest("corpus", written[i].wire) })
	b.report()
	if b.inputs.Load() >= 3000 {
		for _, m := range framingMutations[1:] {
			if b.refused[m.class] == 0 && m.class != "connection" && m.class != "length_zeros" {
				t.Errorf("no input of class %q was refused: is it still an attack?", m.class)
			}
		}
	}
}

// A bench holds the oracles and counts what they said.
type bench struct {
	t       *testing.T
	oracles []*oracle
	inputs  atomic.Int64 // generated
	asked   atomic.Int64 // answers of oracles that were compared

	mu       sync.Mutex
	accepted map[string]int // inputs by class
	refused  map[string]int
	quirks   map[string]int // disagreements that are documented, by name
	declined map[string]int // forwarded requests that an oracle refused, by oracle
	failures map[string]int // by oracle and part
}

func newBench(t *testing.T, o []*oracle) *bench {
	return &bench{t: t, oracles: o, accepted: map[string]int{}, refused: map[string]int{}, quirks: map[string]int{}, declined: map[string]int{}, failures: map[string]int{}}
}

// each calls check for 0 to n-1, a few at a time.
func (b *bench) each(n uint64, check func(i uint64)) {
	var next atomic.Uint64
	var workers sync.WaitGroup
	for range 6 {
		workers.Go(func() {
			for i := next.Add(1) - 1; i < n; i = next.Add(1) - 1 {
				b.inputs.Add(1)
				check(i)
			}
		})
	}
	workers.Wait()
}

func (b *bench) count(m map[string]int, key string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	m[key]++
}

// maxFailures of a kind are reported; a real difference shows in many inputs.
const maxFailures = 5

func (b *bench) fail(kind, format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failures[kind]++; b.failures[kind] <= maxFailures {
		b.t.Errorf(format, args...)
	}
}

func (b *bench) report() {
	b.t.Helper()
	total := 0
	for _, n := range b.accepted {
		total += n
	}
	b.t.Logf("%d inputs, %d accepted, %d answers compared, failures: %v", b.inputs.Load(), total, b.asked.Load(), b.failures)
	b.t.Logf("refused by an oracle although it is canonical: %v", b.declined)
	for name, n := range b.quirks {
		b.t.Logf("%5d times: %s", n, name)
	}
}

// checkRequest holds one input to the properties.
func (b *bench) checkRequest(class, wire string) {
	full := wire + marker
	messages, err := understand(full)
	first, _, _ := strings.Cut(class, "+")
	if len(messages) == 0 || err != nil {
		b.count(b.refused, first)
	} else {
		b.count(b.accepted, first)
	}
	begin := 0
	for _, m := range messages {
		b.checkEnd(class, full[begin:m.end], m)
		begin = m.end
	}
	if class == "none" && (err != nil || len(messages) != 2 && messages[0].head.KeepAlive) {
		b.fail("ours", "%s: %s: %d messages, %v", class, quote(wire), len(messages), err)
	}
	if len(messages) == 0 || messages[0].head.Method == "CONNECT" {
		return
	}
	for _, o := range b.oracles {
		b.checkRaw(o, class, full, messages)
	}
	for _, m := range messages {
		if m.host != "" && m.head.Path != "/marker" {
			b.checkForwarded(class, m)
		}
	}
}

// checkEnd reads a message alone: nothing beyond its end may have had a part in it.
func (b *bench) checkEnd(class, wire string, m *message) {
	r := http1.NewReader(iotest.OneByteReader(strings.NewReader(wire)))
	alone, err := readMessage(r)
	if err != nil || r.Buffered() != 0 {
		b.fail("ours", "%s: %s alone: %v, %d bytes left", class, quote(wire), err, r.Buffered())
		return
	}
	alone.end = m.end
	if d := cmp.Diff(m, alone, cmp.AllowUnexported(message{})); d != "" {
		b.fail("ours", "%s: %s alone reads differently:\n%s", class, quote(wire), d)
	}
}

// checkRaw asks an oracle about the input itself. Where it refuses, or closes, or reads on where we have
// stopped, there is nothing to compare.
func (b *bench) checkRaw(o *oracle, class, full string, messages []*message) {
	got, err := o.ask(full)
	if err != nil {
		b.fail("ours", "%s: %v", class, err)
		return
	}
	for i := range min(len(got), len(messages)) {
		if messages[i].head.Method == "CONNECT" {
			return
		}
		if got[i].seen == nil {
			continue
		}
		b.asked.Add(1)
		for _, d := range o.compare(messages[i], got[i].seen) {
			b.judge(d, class+": raw "+quote(full))
		}
	}
}

// checkForwarded asks every oracle about a message as it leaves us.
func (b *bench) checkForwarded(class string, m *message) {
	sent, wire, err := forward(m)
	if err != nil {
		b.fail("ours", "%s: %+v is read and cannot be written: %v", class, m.head, err)
		return
	}
	for _, o := range b.oracles {
		got, err := o.ask(wire + marker)
		if err != nil {
			b.fail("ours", "%s: %v", class, err)
			continue
		}
		b.asked.Add(1)
		about := class + ": forwarded " + quote(wire)
		if len(got) == 0 || got[0].seen == nil {
			b.count(b.declined, o.name)
			b.judge(disagreement{o.name, "refused", "", fmt.Sprint(got), sent}, about)
			continue
		}
		if n := len(got); n != 2 || got[1].seen == nil || got[1].seen.Target != "/marker" {
			b.judge(disagreement{o.name, "count", "2", fmt.Sprint(got), sent}, about)
		}
		for _, d := range o.compare(sent, got[0].seen) {
			b.judge(d, about)
		}
	}
}

// judge fails for a disagreement that is not documented.
func (b *bench) judge(d disagreement, about string) {
	for _, q := range quirks {
		if q.oracle == d.oracle && q.excuses(d) {
			b.count(b.quirks, q.oracle+": "+q.name+": "+q.why)
			return
		}
	}
	b.fail(d.oracle+" "+d.part, "%s: %s is %.300q, %s says %.300q", about, d.part, d.ours, d.oracle, d.theirs)
}
