package main

import (
	"context"
	"fmt"
	"time"
)

// Keys of what is measured on every subject. Figures are in microseconds and KiB until they are reported.
const (
	keySmall32 = "cpu_per_request_32"
	keySmall1  = "cpu_per_request_1"
	keyAdded   = "added_p50_1"
	keyConnect = "cpu_per_connection"
	keyDown    = "cpu_per_gb_down"
	keyUp      = "cpu_per_gb_up"
	keySigned  = "signed_upload" // per cent of the rate of an upload that is not signed anew
	keyEvents  = "sse_added_p50"
	keyJoined  = "sse_joined" // per cent of events that came together with another
	keyMemory  = "memory_after_load"
	keyIdle    = "memory_per_idle_connection"
)

// figures are the values of every round, by key and subject.
type figures map[string]map[string][]float64

func (f figures) add(key string, s *subject, v float64) {
	if f[key] == nil {
		f[key] = map[string][]float64{}
	}
	f[key][s.target.Name] = append(f[key][s.target.Name], v)
}

// A size says how much of everything one round does.
type size struct {
	small  int // milliseconds of exchanges on 32 connections
	blocks int // blocks of blockSize exchanges on one connection
	conns  int // new connections
	held   int // idle connections
	bulks  int // transfers of bulkSize each way
	sent   int // events in one stream
}

const (
	blockSize = 200
	bulkSize  = 256 << 20
	parallel  = 32 // connections of keySmall32
	dialling  = 8  // new connections at a time
)

var (
	fullSize  = size{small: 3000, blocks: 30, conns: 1500, held: 1000, bulks: 3, sent: 400}
	quickSize = size{small: 1000, blocks: 10, conns: 400, held: 1000, bulks: 1, sent: 100}
)

// A meter measures all subjects, one round after the other.
type meter struct {
	size
	only    string // name of the one measurement that is wanted; empty: all
	direct  *subject
	figures figures
	idled   map[string]int64 // idle connections that fit, by subject
}

// A measurement takes one figure, or several, of one subject.
type measurement func(m *meter, ctx context.Context, s *subject) error

// measurements of one round, each of all subjects before the next.
var measurements = []struct {
	name string
	take measurement
}{
	{"busy", (*meter).busy},
	{"single", (*meter).single},
	{"connect", (*meter).connect},
	{"down", (*meter).down},
	{"up", (*meter).up},
	{"signed", (*meter).signed},
	{"events", (*meter).stream},
}

// round measures subjects that have just been started, in the order given.
func (m *meter) round(ctx context.Context, subjects []*subject) error {
	for _, s := range subjects { // a little warmth, and the leaf is there
		if _, err := s.call(ctx, command{Op: opConnect, Conns: dialling, Count: 4 * dialling}); err != nil {
			return err
		}
	}
	if m.only == "" {
		if err := m.idle(ctx, subjects); err != nil {
			return err
		}
	}
	for _, one := range measurements {
		if m.only != "" && m.only != one.name {
			continue
		}
		for _, s := range subjects {
			if err := one.take(m, ctx, s); err != nil {
				return fmt.Errorf("%s: %w", one.name, err)
			}
		}
	}
	for _, s := range subjects { // the next round has other processes
		if _, err := s.call(ctx, command{Op: opClose}); err != nil {
			return err
		}
	}
	if m.only != "" {
		return nil
	}
	return m.loaded(ctx, subjects)
}

// loaded measures the memory after load, without connections.
func (m *meter) loaded(ctx context.Context, subjects []*subject) error {
	if err := pause(ctx, settle); err != nil {
		return err
	}
	for _, s := range subjects {
		kib, err := s.memory()
		if err != nil {
			return err
		}
		m.figures.add(keyMemory, s, float64(kib))
	}
	return nil
}

// settle is how long connections are left alone before memory is looked at: buffers go back meanwhile.
const settle = 3 * time.Second

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// idle compares the memory with many idle connections to that without, on processes that have done nothing
// else yet: after load their heaps would have room that no idle connection gave back.
func (m *meter) idle(ctx context.Context, subjects []*subject) error {
	if err := pause(ctx, settle); err != nil {
		return err
	}
	before := make([]int64, len(subjects))
	for i, s := range subjects {
		var err error
		if before[i], err = s.memory(); err != nil {
			return err
		}
		r, err := s.call(ctx, command{Op: opHold, Conns: dialling, Count: m.held})
		if err != nil && r.Count < int64(m.held)/10 {
			return err
		}
		m.idled[s.target.Name] = r.Count
	}
	if err := pause(ctx, settle); err != nil {
		return err
	}
	for i, s := range subjects {
		after, err := s.memory()
		if err != nil {
			return err
		}
		r, err := s.call(ctx, command{Op: opRelease})
		if err != nil {
			return err
		}
		if r.Count == 0 {
			return fmt.Errorf("%s kept no connection", s.target.Name)
		}
		m.idled[s.target.Name] = min(m.idled[s.target.Name], r.Count) // the others are not idle but gone
		m.figures.add(keyIdle, s, float64(after-before[i])/float64(r.Count))
	}
	return nil
}

// perUnit returns microseconds per unit.
func perUnit(d time.Duration, n float64) float64 { return float64(d.Nanoseconds()) / 1e3 / n }

// busy measures exchanges on many connections.
func (m *meter) busy(ctx context.Context, s *subject) error {
	if _, err := s.call(ctx, command{Op: opSmall, Conns: parallel, Millis: m.small / 5}); err != nil {
		return err
	}
	var r reply
	cpu, err := s.cpu(func() (err error) {
		r, err = s.call(ctx, command{Op: opSmall, Conns: parallel, Millis: m.small})
		return err
	})
	if err != nil {
		return err
	}
	m.figures.add(keySmall32, s, perUnit(cpu, float64(r.Count)))
	return nil
}

// single measures exchanges on one connection, in blocks that alternate with the upstream itself.
func (m *meter) single(ctx context.Context, s *subject) error {
	var through, direct []int64
	block := command{Op: opSmall, Conns: 1, Count: blockSize}
	cpu, err := s.cpu(func() error {
		for range m.blocks {
			r, err := s.call(ctx, block)
			if err != nil {
				return err
			}
			d, err := m.direct.call(ctx, block)
			if err != nil {
				return err
			}
			through, direct = append(through, r.Latency...), append(direct, d.Latency...)
		}
		return nil
	})
	if err != nil {
		return err
	}
	m.figures.add(keySmall1, s, perUnit(cpu, float64(len(through))))
	m.figures.add(keyAdded, s, (percentile(through, 50)-percentile(direct, 50))/1e3)
	return nil
}

// connect measures new connections to a host that is known, one exchange on each.
func (m *meter) connect(ctx context.Context, s *subject) error {
	cpu, err := s.cpu(func() error {
		_, err := s.call(ctx, command{Op: opConnect, Conns: dialling, Count: m.conns})
		return err
	})
	if err != nil {
		return err
	}
	m.figures.add(keyConnect, s, perUnit(cpu, float64(m.conns)))
	return nil
}

func (m *meter) down(ctx context.Context, s *subject) error { return m.bulk(ctx, s, opDown, keyDown) }

func (m *meter) up(ctx context.Context, s *subject) error { return m.bulk(ctx, s, opUp, keyUp) }

func (m *meter) bulk(ctx context.Context, s *subject, op, key string) error {
	cpu, err := s.cpu(func() error {
		for range m.bulks {
			if _, err := s.call(ctx, command{Op: op, Bytes: bulkSize}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	m.figures.add(key, s, perUnit(cpu, float64(m.bulks)*bulkSize/1e9))
	return nil
}

// stream measures how much later events arrive than they do from the upstream itself.
func (m *meter) stream(ctx context.Context, s *subject) error {
	r, err := s.call(ctx, command{Op: opEvents, Count: m.sent})
	if err != nil {
		return err
	}
	d, err := m.direct.call(ctx, command{Op: opEvents, Count: m.sent})
	if err != nil {
		return err
	}
	m.figures.add(keyEvents, s, (percentile(r.Latency, 50)-percentile(d.Latency, 50))/1e3)
	m.figures.add(keyJoined, s, 100*float64(r.Joined)/float64(r.Count))
	return nil
}
