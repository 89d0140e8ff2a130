package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"torno.internal/broker"
	"torno.internal/host/internal/config"
	"torno.internal/host/internal/doctor"
	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

func (d *diagnosis) state(context.Context) doctor.Finding {
	dir, err := stateDir()
	if err != nil {
		return failed(err, "")
	}
	return doctor.Private(dir, config.BrokerFile)
}

// store looks at what can be seen of the store without opening it.
func (d *diagnosis) store(ctx context.Context) doctor.Finding {
	dir, err := stateDir()
	if err != nil {
		return failed(err, "")
	}
	_, err = os.Stat(filepath.Join(dir, "store.db"))
	if errors.Is(err, fs.ErrNotExist) {
		return doctor.OK("none yet")
	}
	if err != nil {
		return failed(err, "")
	}
	protection, err := broker.KeyProtection(dir)
	switch {
	case err != nil:
		return failed(err, cmp.Or(broker.Hint(err), "if it is damaged: torno store restore, from a backup"))
	case protection == "":
		return doctor.Fail("put a copy of it back, or: torno key recover", "%s has a store, and no key", dir)
	}
	c, err := connect()
	if err != nil {
		return failed(err, "")
	}
	if h, err := c.health(ctx); err == nil && h.Locked {
		return doctor.Warn("torno key unlock", "locked: the broker waits for the passphrase of its key")
	} else if err == nil {
		return doctor.OK("open; its key is protected by: %s", protection)
	}
	if pid := lockHolder(filepath.Join(dir, "lock")); pid != 0 {
		return doctor.Fail(fmt.Sprintf("it may listen elsewhere (XDG_RUNTIME_DIR), or hang: kill %d", pid), "process %d holds %s, and does not answer here", pid, dir)
	}
	if protection == broker.ProtectedByPassphrase {
		return doctor.Warn("torno serve, on a terminal, asks for it", "locked: no broker runs, and the next one needs the passphrase of the key")
	}
	return doctor.OK("closed; its key is protected by: %s", protection)
}

// lockHolder returns the process that holds a lock by flock(2), without trying to take it; 0: none.
func lockHolder(path string) int {
	held, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(held)))
	st, ok := info.Sys().(*syscall.Stat_t)
	locks, _ := os.ReadFile("/proc/locks")
	if err != nil || !ok {
		return 0
	}
	for line := range strings.Lines(string(locks)) {
		f := strings.Fields(line) // 1: FLOCK ADVISORY WRITE 1234 fd:00:5678 0 EOF
		if len(f) >= 6 && f[1] == "FLOCK" && f[4] == strconv.Itoa(pid) && strings.HasSuffix(f[5], ":"+strconv.FormatUint(st.Ino, 10)) {
			return pid
		}
	}
	return 0
}

func (d *diagnosis) sockets(ctx context.Context) doctor.Finding {
	dir, err := runtimeDir()
	if err != nil {
		return failed(err, "")
	}
	if f := doctor.Private(dir); f.State != doctor.StateOK {
		return f
	}
	return doctor.Socket(ctx, filepath.Join(dir, control.SocketName))
}

// operator reads broker.toml as the next broker would.
func (d *diagnosis) operator() (control.Config, error) {
	dir, err := stateDir()
	if err != nil {
		return control.Config{}, err
	}
	return readOperator("", dir)
}

func (d *diagnosis) operatorFile(context.Context) doctor.Finding {
	dir, err := stateDir()
	if err != nil {
		return failed(err, "")
	}
	path := filepath.Join(dir, config.BrokerFile)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return doctor.OK("none, the defaults hold")
	}
	if _, err := d.operator(); err != nil {
		return failed(err, "torno help broker.toml")
	}
	return doctor.OK("%s", path)
}

func (d *diagnosis) broker(ctx context.Context) doctor.Finding {
	c, err := connect()
	if err != nil {
		return failed(err, "")
	}
	h, err := c.health(ctx)
	const restart = "restart torno serve; sessions outlive it"
	switch {
	case errors.Is(err, errNoBroker):
		return doctor.OK("none runs; the first command that needs one starts it")
	case err != nil:
		return failed(err, "")
	case h.Protocol < protocol.MinVersion || h.Protocol > protocol.Version:
		return doctor.Warn(restart, "the broker speaks protocol %d, this torno %d", h.Protocol, protocol.Version)
	case h.Version != d.version:
		return doctor.Warn(restart, "version %s runs, this torno is %s", h.Version, d.version)
	}
	return doctor.OK("%s, process %d, %d sessions", h.Version, h.PID, h.Sessions)
}

func (d *diagnosis) unit(ctx context.Context) doctor.Finding {
	return doctor.Unit(ctx, d.booted, "torno.service")
}

// sessions names the live sessions that are weaker than they look: told apart by their CID alone, or with a network card
// of their own.
func (d *diagnosis) sessions(ctx context.Context) doctor.Finding {
	c, err := connect()
	if err != nil {
		return failed(err, "")
	}
	var infos []control.SessionInfo
	if h, err := c.health(ctx); err == nil && h.Locked {
		return doctor.OK("none are known: the broker is locked")
	}
	if err := c.do(ctx, "GET", control.PathSessions, nil, &infos); err != nil {
		return doctor.OK("none: no broker runs")
	}
	weak := 0
	first := ""
	for _, i := range infos {
		if len(i.Weaknesses) > 0 {
			if weak++; first == "" {
				first = fmt.Sprintf("%s (%s): %s", i.ID, i.Agent, i.Weaknesses[0])
			}
		}
	}
	if weak > 0 {
		return doctor.Warn("torno sessions show ID says how a session is told apart and contained", "%d of %d are weak; %s", weak, len(infos), first)
	}
	return doctor.OK("%d live", len(infos))
}

// agentFile looks at the torno.toml here, if there is one.
func (d *diagnosis) agentFile(ctx context.Context) doctor.Finding {
	path, b, ok, err := config.FindAgentFile(".")
	if err != nil {
		return failed(err, "")
	}
	if !ok {
		return doctor.OK("none in this directory")
	}
	t, err := readTrustable(path, b, "")
	if err != nil {
		return failed(err, "torno help torno.toml")
	}
	c, err := connect()
	if err != nil {
		return failed(err, "")
	}
	if _, err := c.health(ctx); err != nil {
		return doctor.OK("%s, of agent %s; no broker runs that could say whether it is approved", path, t.file.Agent)
	}
	old, err := t.before(ctx, c)
	if err != nil {
		return failed(err, "")
	}
	if string(old.File) != string(b) {
		return doctor.Warn("torno trust", "%s, of agent %s, is not approved as it stands", path, t.file.Agent)
	}
	return doctor.OK("%s, of agent %s, approved", path, t.file.Agent)
}
