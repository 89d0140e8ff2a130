package doctor

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"time"
)

// Unit asks systemd about a service. Booted is the directory that is there where systemd runs.
func Unit(ctx context.Context, booted, unit string) Finding {
	if _, err := os.Stat(booted); err != nil {
		return OK("systemd does not run here; torno run starts a broker by itself")
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "systemctl", "show", "--property=LoadState,ActiveState,Result,UnitFileState", unit).Output()
	if err != nil {
		return Warn("", "systemctl show %s: %v", unit, err)
	}
	is := map[string]string{}
	for line := range strings.Lines(string(out)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		is[key] = value
	}
	switch {
	case is["LoadState"] == "not-found":
		return OK("not installed; torno run starts a broker by itself")
	case is["LoadState"] != "loaded":
		return Fail("systemctl status "+unit, "systemd can't load %s: %s", unit, is["LoadState"])
	case is["ActiveState"] == "failed":
		return Fail("journalctl -u "+unit+" says why; then: systemctl restart "+unit, "%s has failed: %s", unit, is["Result"])
	case is["UnitFileState"] == "enabled" && is["ActiveState"] == "inactive":
		return Warn("systemctl start "+unit, "%s is enabled, and does not run", unit)
	}
	return OK("%s is %s and %s", unit, is["UnitFileState"], is["ActiveState"])
}
