package cli

import (
	"strings"
	"testing"
)

func TestMeter(t *testing.T) {
	report := func(m *meter) {
		m.report("getting packages", 0, 100<<20)
		m.report("getting packages", 50<<20, 100<<20)
		m.report("getting packages", 200<<20, 100<<20) // more than was said
		m.report("installing", 0, 0)
		m.end()
	}
	var b strings.Builder
	report(&meter{out: &b})
	if want := "torno: getting packages: 100 MiB\ntorno: installing\n"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
	b.Reset()
	report(&meter{out: &b, live: true})
	for _, want := range []string{"[........................] 0 MiB of 100 MiB", "[########################] 100 MiB of 100 MiB", "\rtorno: installing"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in %q", want, b.String())
		}
	}
	if strings.Contains(b.String(), "\n") || !strings.HasSuffix(b.String(), " \r") || strings.Contains(b.String(), "50 MiB") {
		t.Errorf("%q", b.String())
	}
}
