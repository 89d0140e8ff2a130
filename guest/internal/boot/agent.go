package boot

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"torno.internal/guest/internal/rootfs"
	"torno.internal/guest/internal/signing"
	"torno.internal/guest/internal/usersocket"
	"torno.internal/guest/internal/workload"
	"torno.internal/protocol"
)

// The sockets that the workload's user is offered, and the variables by which its programs find them.
const (
	agentSocket    = rootfs.Dir + "/ssh-agent"
	agentVariable  = "SSH_AUTH_SOCK"
	signSocket     = rootfs.Dir + "/sign"
	signVariable   = "TORNO_SIGN_SOCK"
	knownHostsFile = "/etc/ssh/ssh_known_hosts"
)

// startAgent offers the workload an SSH agent, where the session has a key for it, and tells the machine's SSH clients
// which hosts it is for.
func (g *guest) startAgent(context.Context) error {
	if g.hello.SSH == nil {
		return nil
	}
	serve := func(ctx context.Context, ln net.Listener) error {
		return usersocket.Serve(ctx, ln, protocol.MaxAgents, g.Log, g.channel.Agent)
	}
	if err := g.offer("ssh agent", agentSocket, agentVariable, serve); err != nil {
		return err
	}
	if err := addKnownHosts(g.hello.SSH.KnownHosts); err != nil { // then clients ask, or refuse
		g.Log.Warn("host keys that SSH's clients do not know", "error", err)
	}
	return nil
}

// startSigning offers the workload proofs for requests that it sends itself, where the machine has a way out of its own.
func (g *guest) startSigning(context.Context) error {
	if !g.hello.OwnEgress {
		return nil
	}
	carry := func(ctx context.Context, client net.Conn) error { return signing.Carry(ctx, client, g.channel.Sign) }
	return g.offer("signing", signSocket, signVariable, func(ctx context.Context, ln net.Listener) error {
		return usersocket.Serve(ctx, ln, signing.MaxClients, g.Log, carry)
	})
}

// offer serves a socket at path to the workload's user, and names it in a variable of its programs.
func (g *guest) offer(name, path, variable string, serve func(context.Context, net.Listener) error) error {
	if err := rootfs.MakeDir(); err != nil {
		return err
	}
	uid := workload.OwnerOf(g.hello.Workload.User)
	if g.attached {
		uid = int(g.UID)
	}
	ln, err := usersocket.Listen(path, uid)
	if err != nil {
		return err
	}
	g.serve(name, func(ctx context.Context) error { return serve(ctx, ln) })
	g.trust = append(g.trust, variable+"="+path)
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
