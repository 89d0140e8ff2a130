package differential

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"torno.internal/protocol"
	"torno.internal/protocol/http1"
)

// responseMarker follows every response.
const responseMarker = "HTTP/1.1 299 Marker\r\nContent-Length: 6\r\n\r\nmarker"

// A response is one as we understand it.
type response struct {
	head    http1.ResponseHead
	content string
	trailer protocol.Fields
	end     int // where it ends on the wire
}

// A responseCase is what clients are asked about.
type responseCase struct {
	about, wire, method string
	want                *response
	canonical           bool // no client may refuse it
}

// TestResponses generates responses. We refuse each, or every client that accepts it reads it as we do;
// and all of them accept, and read alike, what we write of it.
func TestResponses(t *testing.T) {
	b := newBench(t, nil)
	mutations := slices.Concat(framingMutations, responseMutations)
	var cases []responseCase
	for i := range *inputs / 2 { // a request takes an oracle less
		wire, class := newInput(*seed, i, newResponse, mutations)
		b.inputs.Add(1)
		cases = append(cases, b.responseCases(class, wire, methodOf("GGGH"[i%4]))...)
	}
	for _, w := range corpus(t, "testdata/responses.txt") {
		cases = append(cases, b.responseCases("corpus", w.wire, "GET")...)
	}
	b.checkResponses(clients(t), cases)
	b.report()
}

// responseCases returns the cases of one input: none if we refuse it.
func (b *bench) responseCases(class, wire, method string) []responseCase {
	full := wire + responseMarker
	first, _, _ := strings.Cut(class, "+")
	m, err := understandResponse(full, method)
	if err != nil {
		b.count(b.refused, first)
		if class == "none" {
			b.fail("ours", "%s: %s: %v", class, quote(wire), err)
		}
		return nil
	}
	b.count(b.accepted, first)
	if !m.head.CloseDelimited {
		alone, err := understandResponse(full[:m.end], method)
		if d := cmp.Diff(m, alone, cmp.AllowUnexported(response{})); d != "" {
			b.fail("ours", "%s: %s alone reads differently: %v\n%s", class, quote(wire), err, d)
		}
	}
	sent, canonical, err := passOn(m, method)
	if err != nil {
		b.fail("ours", "%s: %s is read and cannot be written: %v", class, quote(wire), err)
		return nil
	}
	return []responseCase{
		{class + ": raw " + quote(full), full, method, m, false},
		{class + ": passed on " + quote(canonical), canonical, method, sent, true},
	}
}

// understandResponse reads the first final response of wire.
func understandResponse(wire, method string) (*response, error) {
	source := strings.NewReader(wire)
	r := http1.NewReader(iotest.HalfReader(source))
	m := &response{}
	for first := true; first || m.head.Interim(); first = false {
		if err := r.ReadResponse(&m.head, method); err != nil {
			return nil, err
		}
	}
	if m.head.Status == 101 {
		return nil, fmt.Errorf("upgrade")
	}
	content, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	m.content, m.trailer, m.end = string(content), r.Trailer(), len(wire)-source.Len()-r.Buffered()
	return m, nil
}

// passOn writes a response as it goes on to the workload.
func passOn(m *response, method string) (sent *response, wire string, err error) {
	sent = &response{content: m.content, trailer: m.trailer}
	sent.head = http1.ResponseHead{Status: m.head.Status, Fields: http1.StripConnection(m.head.Fields.Clone())}
	length := m.head.ContentLength
	if method == "HEAD" || m.head.Status == 304 {
		length = http1.NoContent
	}
	var b bytes.Buffer
	w := http1.NewWriter(&b)
	if err := w.WriteResponse(m.head.Status, sent.head.Fields, length, m.head.Chunked, m.head.CloseDelimited); err != nil {
		return nil, "", err
	}
	if _, err := io.WriteString(w, m.content); err != nil {
		return nil, "", err
	}
	if err := w.Close(m.trailer); err != nil {
		return nil, "", err
	}
	wire = b.String()
	if !m.head.CloseDelimited {
		wire += responseMarker
	}
	return sent, wire, nil
}

// checkResponses asks all clients about all cases.
func (b *bench) checkResponses(all []*client, cases []responseCase) {
	wires, methods := make([]string, len(cases)), make([]byte, len(cases))
	for i, c := range cases {
		wires[i], methods[i] = c.wire, c.method[0]
	}
	port := serveBytes(b.t, wires)
	results := make([][]result, len(all))
	var asking sync.WaitGroup
	for i, cl := range all {
		asking.Go(func() { results[i] = cl.ask(b.t, port, string(methods)) })
	}
	asking.Wait()
	for i, cl := range all {
		for id, r := range results[i] {
			b.checkResult(cl, &cases[id], &r)
		}
	}
}

func (b *bench) checkResult(cl *client, c *responseCase, r *result) {
	b.asked.Add(1)
	if r.Error != "" {
		if c.canonical {
			b.count(b.declined, cl.name)
			b.judgeResponse(responseDisagreement{cl.name, "refused", "", r.Error, c})
		}
		return
	}
	differ := func(part, ours, theirs string) {
		if ours != theirs {
			b.judgeResponse(responseDisagreement{cl.name, part, ours, theirs, c})
		}
	}
	differ("status", fmt.Sprint(c.want.head.Status), fmt.Sprint(r.Status))
	differ("content", c.want.content, r.Content)
	theirs := make(protocol.Fields, len(r.Fields))
	for i, f := range r.Fields {
		theirs[i] = protocol.Field{Name: strings.ToLower(f[0]), Value: f[1]}
	}
	o := &oracle{name: cl.name}
	if cl.name == "net/http" {
		o.drops = []string{"trailer"}
	}
	for _, d := range o.compareFields(&message{head: http1.RequestHead{Fields: c.want.head.Fields}}, theirs) {
		differ(d.part, d.ours, d.theirs)
	}
}

// A responseDisagreement is a part of a response that a client reads differently.
type responseDisagreement struct {
	client, part, ours, theirs string
	about                      *responseCase
}

// judgeResponse fails for a disagreement that is not documented.
func (b *bench) judgeResponse(d responseDisagreement) {
	for _, q := range responseQuirks {
		if q.client == d.client && q.excuses(d) {
			b.count(b.quirks, q.client+": "+q.name+": "+q.why)
			return
		}
	}
	b.fail(d.client+" "+d.part, "%s: %s is %.300q, %s says %.300q", d.about.about, d.part, d.ours, d.client, d.theirs)
}
