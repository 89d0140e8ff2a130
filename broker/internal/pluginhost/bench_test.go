package pluginhost

import "testing"

// BenchmarkFetch is one call of a plugin that runs.
func BenchmarkFetch(b *testing.B) {
	h := start(b, declare(b, ""), quick)
	if _, err := h.Fetch(b.Context(), "bad", "x"); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := h.Fetch(b.Context(), "bad", "x"); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkStart is the first call of one that does not: copy, hash, namespaces, handshake and TLS.
func BenchmarkStart(b *testing.B) {
	for b.Loop() {
		h := start(b, declare(b, ""), quick)
		if _, err := h.Fetch(b.Context(), "bad", "x"); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		h.Close()
		b.StartTimer()
	}
}
