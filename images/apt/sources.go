package apt

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// keyrings are the files that hold the keys of each distribution, on the machine and in what is built of its packages.
var keyrings = map[string]string{
	"Debian": "/usr/share/keyrings/debian-archive-keyring.gpg",
	"Ubuntu": "/usr/share/keyrings/ubuntu-archive-keyring.gpg",
}

// Sources returns those of the machine's own sources that are its distribution's release suite, with updates and
// security. Other sources that the machine has are its own affair.
func Sources(ctx context.Context, suite string) ([]string, error) {
	const format = "$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(ORIGIN)"
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets", "--format", format, "Created-By: Packages").Output()
	if err != nil {
		return nil, fmt.Errorf("asking apt for its sources: %w", err)
	}
	return parseSources(string(out), suite), nil
}

// parseSources reads lines as Sources asks for them.
func parseSources(out, suite string) []string {
	releases := []string{suite, suite + "-updates", suite + "-security"}
	var sources []string
	for line := range strings.Lines(out) {
		fields := strings.Split(strings.TrimSpace(line), "|")
		if len(fields) != 4 || !slices.Contains(releases, fields[1]) {
			continue
		}
		keys, ok := keyrings[fields[3]]
		if !ok {
			continue
		}
		option := ""
		if _, err := os.Stat(keys); err == nil {
			option = "[signed-by=" + keys + "] "
		}
		if source := "deb " + option + fields[0] + " " + fields[1] + " " + fields[2]; !slices.Contains(sources, source) {
			sources = append(sources, source)
		}
	}
	return sources
}
