package audit

import (
	"path/filepath"
	"strings"
	"testing"
)

// A commit of the store counts as recorded with its last record, which alone has the manifest: one of which the
// process did not live to record everything is recorded again by the next.
func TestCommitCountsWithItsLastRecord(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "audit")
	first, second := strings.Repeat("1a", 32), strings.Repeat("2b", 32)
	set := func(secret string, commit uint64, manifest string) Record {
		return Record{Event: "secret_set", Agent: "a", Secret: secret, Version: 1, Commit: commit, Manifest: manifest}
	}
	l := openLog(t, dir, Options{})
	if err := l.Commit([]Record{set("K", 1, ""), set("L", 1, first)}); err != nil {
		t.Fatal(err)
	}
	if err := l.Commit([]Record{set("M", 2, "")}); err != nil { // and was killed before N
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = openLog(t, dir, Options{Segment: 1})
	if err := l.rotate(0, l.now()); err != nil { // its first line repeats the last commit
		t.Fatal(err)
	}
	check := func(number uint64, manifest string, since ...string) {
		t.Helper()
		last, err := LastCommit(dir)
		if err != nil || last.Commit != number || last.Manifest != manifest {
			t.Errorf("the last commit is %d, %s (%v); want %d", last.Commit, last.Manifest, err, number)
		}
		records, err := CommitsSince(dir, 1)
		var got []string
		for _, r := range records {
			got = append(got, r.Secret)
		}
		if err != nil || strings.Join(got, " ") != strings.Join(since, " ") {
			t.Errorf("since commit 1: %q, %v; want %q", got, err, since)
		}
	}
	check(1, first, "M")
	if err := l.Commit([]Record{set("M", 2, ""), set("N", 2, second)}); err != nil {
		t.Fatal(err)
	}
	check(2, second, "M", "M", "N")
}
