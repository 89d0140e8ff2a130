package broker

import (
	"net/http"
	"testing"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// TestAuditBudget holds broker.toml's word on how much a session may record, and the defaults without it.
func TestAuditBudget(t *testing.T) {
	tests := []struct {
		name    string
		limits  control.Limits
		refused bool
	}{
		{"records", control.Limits{AuditRecordsPerSecond: 1}, true},
		{"both", control.Limits{AuditRecordsPerSecond: 1000, AuditMiBPerHour: 1}, false},
		{"defaults", control.Limits{}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, _, stream := opened(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), tt.limits)
			last := protocol.Response{}
			for range 20 { // a burst holds ten seconds' worth
				resp, _, err := stream().ask(get("/"), "")
				if err != nil {
					t.Fatal(err)
				}
				last = resp
			}
			if refused := last.Status == http.StatusTooManyRequests; refused != tt.refused {
				t.Errorf("after 20 exchanges at once: status %d", last.Status)
			}
		})
	}
}

// TestAuditVolume holds the bytes an hour apart from the records: a mebibyte ends before the records of a burst do.
func TestAuditVolume(t *testing.T) {
	_, _, stream := opened(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}),
		control.Limits{AuditRecordsPerSecond: 1 << 20, AuditMiBPerHour: 1})
	p := stream()
	for i := range 1900 {
		resp, _, err := p.ask(get("/"), "")
		if err != nil {
			t.Fatal(err)
		}
		if resp.Status == http.StatusTooManyRequests {
			t.Logf("after %d exchanges", i)
			return
		}
		if resp.Status != http.StatusOK {
			t.Fatalf("exchange %d: %d", i, resp.Status)
		}
	}
	t.Error("1,900 exchanges fit into a mebibyte")
}
