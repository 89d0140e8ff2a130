package boot

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"torno.internal/guest/internal/rootfs"
	"torno.internal/guest/internal/sshagent"
	"torno.internal/guest/internal/workload"
)

const (
	agentSocket    = rootfs.Dir + "/ssh-agent"
	knownHostsFile = "/etc/ssh/ssh_known_hosts"
)

// startAgent offers the workload an SSH agent, where the session has a key for it, and tells the machine's SSH clients
// which hosts it is for.
func (g *guest) startAgent(context.Context) error {
	if g.hello.SSH == nil {
		return nil
	}
	if err := rootfs.MakeDir(); err != nil {
		return err
	}
	uid := workload.OwnerOf(g.hello.Workload.User)
	if g.attached {
		uid = int(g.UID)
	}
	ln, err := sshagent.Listen(agentSocket, uid)
	if err != nil {
		return err
	}
	serve := func(ctx context.Context) error { return sshagent.Serve(ctx, ln, g.Log, g.channel.Agent) }
	g.serve("ssh agent", serve)
	g.trust = append(g.trust, sshagent.Variable+"="+agentSocket)
	if err := addKnownHosts(g.hello.SSH.KnownHosts); err != nil { // then clients ask, or refuse
		g.Log.Warn("host keys that SSH's clients do not know", "error", err)
	}
	return nil
}

// addKnownHosts puts lines before those that the machine's SSH clients know already.
func addKnownHosts(lines []string) error {
	if err := os.MkdirAll(filepath.Dir(knownHostsFile), 0o755); err != nil {
		return err
	}
	old, err := os.ReadFile(knownHostsFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return rootfs.WriteFile(knownHostsFile, []byte(knownHosts(string(old), lines)))
}

// knownHosts returns what knownHostsFile holds when lines are added: each once.
func knownHosts(old string, lines []string) string {
	var b strings.Builder
	for _, l := range lines {
		if !strings.ContainsAny(l, "\r\n") {
			b.WriteString(l + "\n")
		}
	}
	for l := range strings.Lines(old) {
		if l = strings.TrimSuffix(l, "\n"); !slices.Contains(lines, l) {
			b.WriteString(l + "\n")
		}
	}
	return b.String()
}
