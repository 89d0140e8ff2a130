package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// Operations of the load generator.
const (
	opSmall   = "small"   // small exchanges on Conns kept connections: for Millis, or Count on each
	opConnect = "connect" // Count new connections, Conns at a time, one small exchange on each
	opDown    = "down"    // one answer of Bytes
	opUp      = "up"      // one request of Bytes
	opSigned  = "signed"  // one request of Bytes in signed chunks, Count times in turns: not signed anew, and signed anew
	opEvents  = "events"  // one answer of Count events
	opHold    = "hold"    // Count connections, each after one exchange, kept until opRelease
	opRelease = "release" // use and close what is held
	opClose   = "close"   // close the kept connections
)

// A command is one line of JSON on the load generator's standard input.
type command struct {
	Op     string
	Target target
	Conns  int
	Count  int
	Millis int
	Bytes  int64
}

// A reply is one line of JSON on its standard output.
type reply struct {
	Error   string  `json:",omitempty"`
	Count   int64   // exchanges, connections or events that were done
	Latency []int64 `json:",omitempty"` // nanoseconds: of each exchange where Count bounds one connection, or of opSigned, and of each event
	Joined  int     // events that came together with another
}

// A load keeps connections from one command to the next.
type load struct {
	config *tls.Config
	kept   map[string][]*client // by target's name
	held   map[string][]*client
}

// serveLoad does commands until in ends. It is the same for every subject: outside any session, and as
// the workload of one.
func serveLoad(in io.Reader, out io.Writer) error {
	config, err := clientTLS("") // SSL_CERT_FILE says whom to trust
	if err != nil {
		return err
	}
	l := &load{config: config, kept: map[string][]*client{}, held: map[string][]*client{}}
	commands, replies := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var c command
		if err := commands.Decode(&c); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		r, err := l.do(c)
		if err != nil {
			r.Error = err.Error()
		}
		if err := replies.Encode(r); err != nil {
			return err
		}
	}
}

func (l *load) do(c command) (reply, error) {
	switch c.Op {
	case opSmall:
		return l.small(c)
	case opConnect:
		return l.connect(c)
	case opDown, opUp:
		return l.bulk(c)
	case opSigned:
		return l.signed(c)
	case opEvents:
		return l.events(c)
	case opHold:
		return l.hold(c)
	case opRelease:
		return l.release(c)
	case opClose:
		for _, k := range l.kept[c.Target.Name] {
			k.close()
		}
		delete(l.kept, c.Target.Name)
		return reply{}, nil
	}
	return reply{}, fmt.Errorf("operation %q", c.Op)
}

// fresh dials t and makes a first exchange that shows whether the credential is added.
func (l *load) fresh(t target) (*client, error) {
	k, err := dial(context.Background(), t, l.config)
	if err != nil {
		return nil, err
	}
	if err := k.check(t); err != nil {
		k.close()
		return nil, err
	}
	return k, nil
}

// connections returns n kept connections to t.
func (l *load) connections(t target, n int) ([]*client, error) {
	for len(l.kept[t.Name]) < n {
		k, err := l.fresh(t)
		if err != nil {
			return nil, err
		}
		l.kept[t.Name] = append(l.kept[t.Name], k)
	}
	return l.kept[t.Name][:n], nil
}

// small makes exchanges on each connection as fast as they are answered.
func (l *load) small(c command) (reply, error) {
	conns, err := l.connections(c.Target, max(c.Conns, 1))
	if err != nil {
		return reply{}, err
	}
	var r reply
	if c.Count > 0 && len(conns) == 1 {
		r.Latency = make([]int64, 0, c.Count)
	}
	end := time.Now().Add(time.Duration(c.Millis) * time.Millisecond)
	counts, errs := make([]int64, len(conns)), make([]error, len(conns))
	var all sync.WaitGroup
	for i, k := range conns {
		all.Go(func() {
			get := request("GET", "/json", 0)
			for n := int64(0); errs[i] == nil && (n < int64(c.Count) || c.Count == 0 && time.Now().Before(end)); n++ {
				began := monotonic()
				errs[i] = k.exchange(get, smallSize)
				if r.Latency != nil {
					r.Latency = append(r.Latency, monotonic()-began)
				}
				counts[i]++
			}
		})
	}
	all.Wait()
	for _, n := range counts {
		r.Count += n
	}
	return r, errors.Join(errs...)
}

// each calls f c.Count times, on c.Conns goroutines.
func each(c command, f func() error) error {
	work := make(chan struct{}, c.Count)
	for range c.Count {
		work <- struct{}{}
	}
	close(work)
	var all sync.WaitGroup
	errs := make([]error, max(c.Conns, 1))
	for i := range errs {
		all.Go(func() {
			for range work {
				if errs[i] = f(); errs[i] != nil {
					return
				}
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

func (l *load) connect(c command) (reply, error) {
	err := each(c, func() error {
		k, err := l.fresh(c.Target)
		if err == nil {
			k.close()
		}
		return err
	})
	return reply{Count: int64(c.Count)}, err
}

func (l *load) bulk(c command) (reply, error) {
	k, err := l.fresh(c.Target)
	if err != nil {
		return reply{}, err
	}
	defer k.close()
	k.br = bufioSize(k, 64<<10)
	if c.Op == opDown {
		return reply{Count: 1}, k.exchange(request("GET", fmt.Sprintf("/down?n=%d", c.Bytes), 0), c.Bytes)
	}
	if err := k.begin(request("POST", "/up", c.Bytes)); err != nil {
		return reply{}, err
	}
	piece := bytes.Repeat([]byte("some text of a file that goes up. "), 2000)[:64<<10]
	for left := c.Bytes; left > 0; left -= int64(len(piece)) {
		if _, err := k.nc.Write(piece[:min(left, int64(len(piece)))]); err != nil {
			return reply{}, err
		}
	}
	if err := k.answer(); err != nil {
		return reply{}, err
	}
	b, err := k.next()
	if err == nil && string(b) != fmt.Sprint(c.Bytes) {
		err = fmt.Errorf("upstream got %q bytes, want %d", b, c.Bytes)
	}
	return reply{Count: 1}, err
}

// events reads events and compares when each was sent with when its last byte arrived.
func (l *load) events(c command) (reply, error) {
	k, err := l.fresh(c.Target)
	if err != nil {
		return reply{}, err
	}
	defer k.close()
	if err := k.begin(request("GET", fmt.Sprintf("/sse?n=%d", c.Count), 0)); err != nil {
		return reply{}, err
	}
	if err := k.answer(); err != nil {
		return reply{}, err
	}
	var r reply
	var buf []byte
	last := -1
	for {
		b, err := k.next()
		if err != nil && err != io.EOF {
			return r, err
		}
		buf = append(buf, b...)
		for {
			event, rest, whole := bytes.Cut(buf, []byte("\n\n"))
			if !whole {
				break
			}
			var e struct{ T int64 }
			if err := json.Unmarshal(bytes.TrimPrefix(event, []byte("data: ")), &e); err != nil {
				return r, fmt.Errorf("event %q: %w", event, err)
			}
			r.Latency = append(r.Latency, k.arrived-e.T)
			if last == k.reads {
				r.Joined++
			}
			last, buf = k.reads, rest
		}
		if err == io.EOF {
			break
		}
	}
	if r.Count = int64(len(r.Latency)); r.Count != int64(c.Count) {
		return r, fmt.Errorf("%d events, want %d", r.Count, c.Count)
	}
	return r, nil
}

// hold opens connections and keeps as many as fit.
func (l *load) hold(c command) (reply, error) {
	var mu sync.Mutex
	err := each(c, func() error {
		k, err := l.fresh(c.Target)
		if err != nil {
			return err
		}
		k.br = nil // else this process would grow as well
		mu.Lock()
		defer mu.Unlock()
		l.held[c.Target.Name] = append(l.held[c.Target.Name], k)
		return nil
	})
	return reply{Count: int64(len(l.held[c.Target.Name]))}, err
}

// release uses every held connection once more, closes it, and counts those that had been kept.
func (l *load) release(c command) (reply, error) {
	var r reply
	get := request("GET", "/json", 0)
	for _, k := range l.held[c.Target.Name] {
		k.br = bufioSize(k, 4<<10)
		if k.exchange(get, smallSize) == nil {
			r.Count++
		}
		k.close()
	}
	delete(l.held, c.Target.Name)
	return r, nil
}
