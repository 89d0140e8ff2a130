package main

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestPercentile(t *testing.T) {
	hundred := make([]int64, 100)
	for i := range hundred {
		hundred[i] = int64(100 - i)
	}
	for _, tt := range []struct {
		v    []int64
		p    float64
		want float64
	}{
		{hundred, 50, 50}, {hundred, 99, 99}, {hundred, 100, 100}, {hundred, 0, 1}, {[]int64{7}, 50, 7},
		{[]int64{3, 1, 2}, 50, 2}, {[]int64{4, 1, 2, 3}, 50, 2}, {nil, 50, math.NaN()},
	} {
		if got := percentile(tt.v, tt.p); !cmp.Equal(got, tt.want, cmpopts.EquateNaNs()) {
			t.Errorf("percentile(%v, %v) = %v, want %v", tt.v, tt.p, got, tt.want)
		}
	}
	if hundred[0] != 100 {
		t.Error("percentile sorts what it was given")
	}
}

func TestMedian(t *testing.T) {
	nan := math.NaN()
	for _, tt := range []struct {
		v    []float64
		want float64
	}{
		{[]float64{3, 1, 2}, 2}, {[]float64{4, 1, 2, 3}, 2.5}, {[]float64{1}, 1}, {nil, nan}, {[]float64{nan, 5, nan}, 5}, {[]float64{nan}, nan},
	} {
		if got := median(tt.v); !cmp.Equal(got, tt.want, cmpopts.EquateNaNs()) {
			t.Errorf("median(%v) = %v, want %v", tt.v, got, tt.want)
		}
	}
}

// Ratios are taken within a round: a slow round of both changes nothing.
func TestRatios(t *testing.T) {
	got := ratios([]float64{2, 20, 6, 1, 1}, []float64{1, 10, 2, 0, -3})
	want := []float64{2, 2, 3, math.NaN(), math.NaN()}
	if diff := cmp.Diff(want, got, cmpopts.EquateNaNs()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if m := median(got); m != 2 {
		t.Errorf("median %v, want 2", m)
	}
	if got := ratios([]float64{1, 2}, []float64{1}); len(got) != 1 {
		t.Errorf("rounds that one has not: %v", got)
	}
}
