package broker

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"torno.internal/protocol/control"
)

// TestRowS8Overlap sets a value that no workload may hold beside one that it sees and that shares bytes with it,
// in either order and for either agent.
func TestRowS8Overlap(t *testing.T) {
	up := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte(r.Header.Get("Authorization")))
	}))
	defer up.Close()
	const password = "0a1b2c3d4e5f60718293a4b5c6d7e8f9"
	url := "postgresql://app:" + password + "@db/app"
	exposed := func(version int, overlap bool) control.Meta {
		return control.Meta{Agent: "a", Name: "DATABASE_URL", Version: version, Expose: control.ExposeEnv, Overlap: overlap}
	}
	d := newDesk(t, up)
	d.must(d.setMeta(exposed(1, false), url))
	err := d.setMeta(bearerOf("PG_PASSWORD", 1, ""), password)
	if err == nil || !strings.Contains(err.Error(), "PG_PASSWORD shares bytes with DATABASE_URL") || strings.Contains(err.Error(), password) {
		t.Errorf("the exposed one was first: %v", err)
	}
	d.must(d.setMeta(bearerOf("PG_PASSWORD", 1, ""), keyOf(1))) // the control
	if err := d.setMeta(exposed(2, false), "x"+keyOf(1)[4:16]); err == nil {
		t.Error("the proxied one was first, and twelve bytes of it were exposed")
	}
	d.must(d.setMeta(exposed(2, false), "x"+keyOf(1)[4:15]))
	other := bearerOf("PG_PASSWORD", 1, "")
	other.Agent = "b"
	d.must(d.setMeta(other, "x"+keyOf(1)[4:15]+"y0123456789"))
	allowed := bearerOf("PG_PASSWORD", 2, "")
	allowed.Overlap = true
	d.must(d.setMeta(exposed(3, false), url))
	d.must(d.setMeta(allowed, password))
	_, stream := d.enter()
	want(t, "what is out of the guarantee is not masked", stream().says(), "Bearer "+password)
}
