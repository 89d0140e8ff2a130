package broker

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/metrics"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/sys/unix"

	ctlserver "torno.internal/broker/internal/control"
	"torno.internal/broker/internal/metric"
	"torno.internal/protocol/control"
)

// Bounds of the metrics' server, which any local user may reach where it is on TCP.
const (
	metricsConns   = 16
	metricsHead    = 8 << 10 // bytes of a request's head
	metricsTimeout = 10 * time.Second
)

// count counts how the exchange ended, for those who watch numbers.
func (x *exchange) count(refused bool, reason string) {
	m, a := &x.s.b.metrics, x.s.counters
	if reason != "" {
		m.Reason(reason)
	}
	switch {
	case refused:
		a.Refused.Add(1)
		return
	case reason != "":
		a.Failed.Add(1)
	default:
		a.Answered.Add(1)
		m.Duration.Observe(time.Since(x.started))
		m.Head.Observe(x.outcome.Head)
	}
	a.Up.Add(uint64(x.outcome.BytesUp))
	a.Down.Add(uint64(x.outcome.BytesDown))
	a.Masked.Add(uint64(x.outcome.Masked))
}

// openMetrics listens where the operator's file says; nil: nowhere.
func (b *Broker) openMetrics() (net.Listener, error) {
	text := b.cfg.Operator.Metrics.Listen
	if text == "" {
		return nil, nil
	}
	network, address, err := control.ParseMetricsListen(text)
	if err != nil {
		return nil, err
	}
	if network == "unix" {
		return ctlserver.Listen(address)
	}
	ln, err := net.Listen(network, address)
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	return ln, nil
}

// serveMetrics answers on ln until ctx ends.
func (b *Broker) serveMetrics(ctx context.Context, ln net.Listener) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", metric.ContentType)
		_, _ = w.Write(b.metrics.Write(b.gauges())) // a scraper that is gone needs no answer
	})
	srv := &http.Server{Handler: mux, ReadTimeout: metricsTimeout, WriteTimeout: metricsTimeout, IdleTimeout: time.Minute, MaxHeaderBytes: metricsHead}
	defer context.AfterFunc(ctx, func() { _ = srv.Close() })()
	if err := srv.Serve(netutil.LimitListener(ln, metricsConns)); ctx.Err() == nil {
		b.log.Error("metrics are not served any more", "err", err)
	}
}

// gauges returns what holds now.
func (b *Broker) gauges() *metric.Gauges {
	g := &metric.Gauges{Version: b.cfg.Version, Sessions: map[string]int{}, Waiting: len(b.desk.List()), Process: b.process()}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.live {
		g.Sessions[s.agent]++
		g.Streams += int(s.stats.forward.Load() + s.stats.channel.Load())
	}
	return g
}

// heapLive is how much of the heap the last collection found in use, in bytes.
func heapLive() int64 {
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(s)
	if s[0].Value.Kind() != metrics.KindUint64 {
		return 0
	}
	return int64(s[0].Value.Uint64())
}

// process returns what the operating system says of us. What it does not say is zero.
func (b *Broker) process() metric.Process {
	p := metric.Process{Started: b.started, Goroutines: runtime.NumGoroutine(), HeapLive: heapLive()}
	var usage unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &usage) == nil {
		p.CPU = time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	}
	if entries, err := os.ReadDir("/proc/self/fd"); err == nil {
		p.Open = len(entries)
	}
	if statm, err := os.ReadFile("/proc/self/statm"); err == nil {
		if fields := strings.Fields(string(statm)); len(fields) > 1 {
			pages, _ := strconv.ParseInt(fields[1], 10, 64)
			p.Resident = pages * int64(os.Getpagesize())
		}
	}
	return p
}
