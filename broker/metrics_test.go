package broker

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// scrape reads the metrics of a broker that serves them at a socket, as Prometheus does, and returns samples by family.
func scrape(t *testing.T, path string) (text string, sum func(family string, labels ...string) float64) {
	t.Helper()
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
	resp, err := c.Get("http://x/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain; version=0.0.4") {
		t.Fatalf("%d %v, %v", resp.StatusCode, resp.Header, err)
	}
	p := expfmt.NewTextParser(model.LegacyValidation)
	families, err := p.TextToMetricFamilies(strings.NewReader(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	return string(b), func(family string, labels ...string) (total float64) {
		for _, m := range families[family].GetMetric() {
			have := ""
			for _, l := range m.GetLabel() {
				have += l.GetName() + "=" + l.GetValue() + " "
			}
			fits := true
			for _, l := range labels {
				fits = fits && strings.Contains(have, l+" ")
			}
			if fits {
				total += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
		return total
	}
}

// Numbers are there on request, count what happened, and hold nothing that a workload chooses.
func TestMetrics(t *testing.T) {
	a := newAskDesk(t, control.Limits{}, asksForPosts)
	sock := filepath.Join(a.dir, "m", "metrics")
	a.stop()
	a.cfg.Operator.Metrics.Listen = "unix://" + sock
	a.start()
	p, err := a.dial(a.session.Broker, protocol.KindForward, a.token)
	a.must(err)
	for range 3 {
		_, _, err := p.ask(get("/canary-path?canary-query"), "12345")
		a.must(err)
	}
	refused := &protocol.Request{Method: "GET", Scheme: "https", Authority: "canary-host.example", Path: "/"}
	resp, _, err := p.ask(refused, "")
	if err != nil || resp.Status != 403 {
		t.Fatalf("%d, %v", resp.Status, err)
	}
	_, done := a.send(post("/v1/x"), "")
	id := a.waiting(1)[0].ID
	if _, sum := scrape(t, sock); sum("torno_approvals_waiting") != 1 {
		t.Error("nobody waits")
	}
	a.must(a.decide(id, false, false))
	<-done
	text, sum := scrape(t, sock)
	for _, tt := range []struct {
		family string
		labels []string
		want   float64
	}{
		{"torno_exchanges_total", []string{"agent=a", "result=answered"}, 3}, {"torno_exchanges_total", []string{"agent=a", "result=refused"}, 2},
		{"torno_reasons_total", []string{"reason=denied"}, 1}, {"torno_reasons_total", []string{"reason=ask_denied"}, 1},
		{"torno_approvals_total", []string{"outcome=denied"}, 1}, {"torno_content_bytes_total", []string{"direction=up"}, 15},
		{"torno_sessions", []string{"agent=a"}, 1}, {"torno_exchange_duration_seconds", nil, 3}, {"torno_response_head_seconds", nil, 3},
	} {
		if got := sum(tt.family, tt.labels...); got != tt.want {
			t.Errorf("%s %q: %v, want %v", tt.family, tt.labels, got, tt.want)
		}
	}
	if sum("process_resident_memory_bytes") < 1<<20 || sum("process_open_fds") < 5 || sum("go_goroutines") < 5 {
		t.Errorf("of the process:\n%s", text)
	}
	for _, never := range []string{"canary", testKey, "KEY", "example"} {
		if strings.Contains(text, never) {
			t.Errorf("the metrics hold %q:\n%s", never, text)
		}
	}
	if info, err := os.Stat(sock); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v, %v", info, err)
	}
}

// A flood of hosts, paths and reasons makes the page no longer.
func TestMetricsAreBounded(t *testing.T) {
	a := newAskDesk(t, control.Limits{AuditRecordsPerSecond: 10000}, asksForPosts)
	sock := filepath.Join(a.dir, "m", "metrics")
	a.stop()
	a.cfg.Operator.Metrics.Listen = "unix://" + sock
	a.start()
	p, err := a.dial(a.session.Broker, protocol.KindForward, a.token)
	a.must(err)
	ask := func(host string) {
		_, _, err := p.ask(&protocol.Request{Method: "GET", Scheme: "https", Authority: host, Path: "/"}, "")
		a.must(err)
	}
	ask("first.example")
	before, _ := scrape(t, sock)
	for i := range 500 {
		ask("host-" + strings.Repeat("x", 1+i%50) + ".example")
	}
	after, _ := scrape(t, sock)
	if b, n := strings.Count(before, "\n"), strings.Count(after, "\n"); n != b {
		t.Errorf("%d lines, %d before", n, b)
	}
}

func TestMetricsListen(t *testing.T) {
	for _, bad := range []string{"9118", "0.0.0.0:9118", "[::]:9118", "192.0.2.1:9118", "localhost:9118", "unix://relative", "unix:///a/../b", "tcp://127.0.0.1:1"} {
		if network, address, err := control.ParseMetricsListen(bad); err == nil {
			t.Errorf("%q is %s %s", bad, network, address)
		}
	}
	for _, good := range []string{"127.0.0.1:9118", "[::1]:9118", "unix:///run/torno/metrics"} {
		if _, _, err := control.ParseMetricsListen(good); err != nil {
			t.Error(err)
		}
	}
	d := newDesk(t, nil)
	d.stop()
	d.cfg.Operator.Metrics.Listen = "127.0.0.1:0"
	d.start() // also on TCP
}
