package main

import (
	"fmt"
	"regexp"
	"time"
)

var tagged = regexp.MustCompile(`^v?([0-9]+\.[0-9]+\.[0-9]+)(?:-([0-9]+)-g([0-9a-f]+))?(-dirty)?$`)

// packageVersion makes of what git describe prints a version that dpkg and rpm order by age: commits after a tag above
// it, commits before any tag below the first one.
func packageVersion(described string, commit time.Time) string {
	m := tagged.FindStringSubmatch(described)
	if m == nil {
		hash := regexp.MustCompile(`[^0-9a-z]+`).ReplaceAllString(described, ".")
		return fmt.Sprintf("0~%s.%s", commit.UTC().Format("20060102150405"), hash)
	}
	version := m[1]
	if m[2] != "" {
		version += "+" + m[2] + ".g" + m[3]
	}
	if m[4] != "" {
		version += "+dirty"
	}
	return version
}
