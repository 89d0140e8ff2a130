package broker

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// BenchmarkExchange is one small exchange after the other on one stream, with policy, audit, credential and
// scrubbing; the upstream's own work is counted in.
func BenchmarkExchange(b *testing.B) {
	answer := `{"id":"msg_01","type":"message","content":[{"type":"text","text":"` + strings.Repeat("hello ", 20) + `"}]}`
	p := benchStream(b, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, answer)
	}))
	req := get("/v1/messages", protocol.Field{Name: "user-agent", Value: "bench"}, protocol.Field{Name: "accept", Value: "*/*"})
	b.ReportAllocs()
	for b.Loop() {
		resp, body, err := p.ask(req, "")
		if err != nil || resp.Status != 200 || len(body) != len(answer) {
			b.Fatalf("%d %q, %v", resp.Status, body, err)
		}
	}
}

func benchStream(b *testing.B, up http.Handler) *peer {
	b.Helper()
	_, _, stream := opened(b, up, control.Limits{AuditRecordsPerSecond: 1 << 20, AuditMiBPerHour: 1 << 20})
	return stream()
}
