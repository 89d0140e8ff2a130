package main

import (
	"math"
	"slices"
)

// percentile returns the value at rank p (0 to 100) of v, nearest rank; NaN without values.
func percentile(v []int64, p float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(v))
	rank := int(math.Ceil(p / 100 * float64(len(sorted))))
	return float64(sorted[min(max(rank, 1), len(sorted))-1])
}

// median returns the middle of v, between the two middle ones where there are two; what is not a number
// does not count. NaN without values.
func median(v []float64) float64 {
	sorted := slices.DeleteFunc(slices.Sorted(slices.Values(v)), math.IsNaN)
	n := len(sorted)
	if n == 0 {
		return math.NaN()
	}
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// ratios divides a by b, round by round. A round in which b is not above zero gives no ratio: an added
// time may be lost in the noise.
func ratios(a, b []float64) []float64 {
	r := make([]float64, min(len(a), len(b)))
	for i := range r {
		r[i] = math.NaN()
		if b[i] > 0 {
			r[i] = a[i] / b[i]
		}
	}
	return r
}
