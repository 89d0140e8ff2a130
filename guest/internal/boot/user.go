package boot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"torno.internal/guest/internal/rootfs"
	"torno.internal/guest/internal/workload"
	"torno.internal/protocol"
)

// makeUser gives the user agent what programs look up: a line in passwd and group under its own name,
// and a home. Neither is needed to run, so what cannot be written is logged.
func (g *guest) makeUser(context.Context) error {
	home := workload.Home(protocol.UserAgent)
	id := fmt.Sprint(workload.AgentID)
	err := errors.Join(
		rewrite("/etc/passwd", func(old string) string {
			return replaceID(old, id, "agent:x:"+id+":"+id+":workload:"+home+":"+workload.Shell())
		}),
		rewrite("/etc/group", func(old string) string { return replaceID(old, id, "agent:x:"+id+":") }),
		makeHome(home),
	)
	if err != nil {
		g.Log.Warn("the user agent is incomplete", "error", err)
	}
	return nil
}

func rewrite(path string, change func(string) string) error {
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if changed := change(string(old)); changed != string(old) {
		return rootfs.WriteFile(path, []byte(changed))
	}
	return nil
}

// replaceID puts line, which is about the id in its third column, in the place of others of that id or
// that name.
func replaceID(old, id, line string) string {
	var b strings.Builder
	name, _, _ := strings.Cut(line, ":")
	for l := range strings.Lines(old) {
		columns := strings.Split(strings.TrimSuffix(l, "\n"), ":")
		if len(columns) > 2 && (columns[2] == id || columns[0] == name) {
			continue
		}
		b.WriteString(strings.TrimSuffix(l, "\n") + "\n")
	}
	return b.String() + line + "\n"
}

func makeHome(home string) error {
	if _, err := os.Stat(home); err == nil {
		return nil
	}
	if err := os.MkdirAll(home, 0o755); err != nil {
		return err
	}
	return unix.Chown(home, workload.AgentID, workload.AgentID)
}
