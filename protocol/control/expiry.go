package control

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// expiryLayouts are how a moment may be written, from the most exact to the least.
var expiryLayouts = []string{time.RFC3339, "2006-01-02T15:04:05", "2006-01-02 15:04", "2006-01-02"}

// maxExpiryDays bounds a number of days: some centuries.
const maxExpiryDays = 60_000

// ParseExpiry reads a moment, a day (which ends it), or how long from now.
func ParseExpiry(text string, now time.Time) (time.Time, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n > 0 && n <= maxExpiryDays {
			return now.Add(time.Duration(n) * 24 * time.Hour), nil
		}
	}
	if d, err := time.ParseDuration(text); err == nil && d > 0 {
		return now.Add(d), nil
	}
	for i, layout := range expiryLayouts {
		t, err := time.ParseInLocation(layout, text, time.Local)
		if err != nil {
			continue
		}
		if i == len(expiryLayouts)-1 {
			t = t.AddDate(0, 0, 1) // the day is over
		}
		if !t.After(now) {
			return time.Time{}, fmt.Errorf("%s is past", text)
		}
		return t.UTC(), nil
	}
	return time.Time{}, fmt.Errorf("%q is no moment", text)
}
