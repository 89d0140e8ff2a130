package soak

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestJudge(t *testing.T) {
	b := bound{must: 10, aim: 5}
	for value, want := range map[float64]string{-1: verdictAim, 5: verdictAim, 5.1: verdictPass, 10: verdictPass, 10.1: verdictMiss, math.Inf(1): verdictMiss, math.NaN(): verdictMiss} {
		var r Report
		r.judge("p", "f", value, "s", b, "")
		if got := r.Rows[0].Verdict; got != want || r.Misses() != strings.Count(want, verdictMiss) {
			t.Errorf("%v: %s, want %s", value, got, want)
		}
	}
	var r Report
	r.judge("p", "nothing lost", 0, "", none, "")
	r.judge("p", "one lost", 1, "", none, "")
	if r.Rows[0].Verdict != verdictAim || r.Rows[1].Verdict != verdictMiss {
		t.Errorf("%+v", r.Rows)
	}
}

// What is written can be read again, and the table says all of it.
func TestReport(t *testing.T) {
	r := Report{Machine: "2 × some processor", Load: "0 0 0"}
	r.tell("p", "told", 1.234, "ms", "note")
	r.judge("p", "judged", 3, "s", bound{must: 2.5, aim: 1}, "")
	path := filepath.Join(t.TempDir(), "r.json")
	if err := r.WriteJSON(path); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var again Report
	if err := json.Unmarshal(b, &again); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r, again); diff != "" {
		t.Errorf("(-written +read)\n%s", diff)
	}
	var table strings.Builder
	r.Write(&table)
	for _, want := range []string{"told", "1.23", "ms", "note", "judged", "≤ 2.50", "≤ 1", "MISS", "2 × some processor"} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("no %q in\n%s", want, &table)
		}
	}
}

func TestParseStatus(t *testing.T) {
	var u usage
	if err := u.parseStatus("Name:\tx 1 kB\nVmRSS:\t    2048 kB\nRssAnon:\t   1024 kB\nThreads:\t7\n"); err != nil || u.resident != 2<<20 || u.anonymous != 1<<20 || u.threads != 7 {
		t.Errorf("%+v, %v", u, err)
	}
	for _, text := range []string{"", "VmRSS: 1 kB\n", "RssAnon: x\nVmRSS: 1\nThreads: 1\n"} {
		if err := u.parseStatus(text); err == nil {
			t.Errorf("%q is a status", text)
		}
	}
}

func TestParseCPU(t *testing.T) {
	got, err := parseCPU([]byte("7 (a) b) S 42 7 7 0 -1 4194560 1 2 3 4 150 25 5 6 20 0 9 0 100 1 1"))
	if err != nil || got != 1750*time.Millisecond {
		t.Errorf("%v, %v", got, err)
	}
	for _, line := range []string{"", "7 (a) S 42", "7 (t) S 1 7 7 0 -1 4194560 1 2 3 4 150 x"} {
		if got, err := parseCPU([]byte(line)); err == nil {
			t.Errorf("%q: %v", line, got)
		}
	}
}

// What the kernel says of this process holds together.
func TestOwnUsage(t *testing.T) {
	before, err := usageOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	block := make([]byte, 32<<20)
	for i := range block {
		block[i] = byte(i)
	}
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	after, err := usageOf(os.Getpid())
	if err != nil || after.anonymous-before.anonymous < 24<<20 || after.open != before.open+1 || after.threads < 1 {
		t.Errorf("before %+v, after %+v, %v", before, after, err)
	}
	_ = block[len(block)-1]
}

func TestJudgeSecret(t *testing.T) {
	for _, tt := range []struct {
		e     entry
		last  int
		state string
		lost  bool
	}{
		{entry{what: isSet, version: 3}, 3, isSet, false},
		{entry{what: isSet, version: 3}, 2, isSet, true},
		{entry{what: isSet, version: 3}, 4, isSet, false},
		{entry{what: isSet, version: 3}, 3, isDeleted, true},
		{entry{what: isSet, version: 3, asked: true}, 3, isDeleted, false},
		{entry{what: isSet, version: 3, asked: true}, 2, isSet, true},
		{entry{what: isRevoked, version: 3}, 3, isRevoked, false},
		{entry{what: isRevoked, version: 3}, 3, isSet, true},
		{entry{what: isDeleted, version: 3}, 3, isSet, true},
		{entry{what: isDeleted, version: 3}, 3, isDeleted, false},
		{entry{asked: true}, 0, isDeleted, false},
	} {
		if got := judgeSecret("K", tt.e, tt.last, tt.state); (got != "") != tt.lost {
			t.Errorf("%+v, and version %d is %s: %q", tt.e, tt.last, tt.state, got)
		}
	}
}
