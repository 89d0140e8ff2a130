package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"torno.internal/broker"
	"torno.internal/host/internal/systemd"
	"torno.internal/protocol/control"
)

// A unit is the broker as a service of systemd sees it. Without systemd it merely reads the operator's file again on
// SIGHUP.
type unit struct {
	*systemd.Manager
	log *slog.Logger
	hup chan os.Signal

	problem string // why the operator's file was not read again, until it was
}

// statusInterval is how often the status for people is brought up to date.
const statusInterval = 10 * time.Second

// joinUnit takes over what systemd has for the broker: the control socket, and whom to tell that it is ready.
func joinUnit(c *broker.Config) (*unit, error) {
	sockets, err := systemd.Listeners()
	if err != nil {
		return nil, err
	}
	if c.Listener, err = controlOf(sockets); err != nil {
		return nil, err
	}
	m, err := systemd.Connect()
	if err != nil {
		return nil, err
	}
	u := &unit{Manager: m, log: c.Log, hup: make(chan os.Signal, 1)}
	signal.Notify(u.hup, syscall.SIGHUP)
	c.Ready = func() { u.say(u.Ready()) }
	return u, nil
}

// controlOf returns the control socket of those that systemd listens on, or nil: one called control, or the only one.
func controlOf(sockets map[string]net.Listener) (net.Listener, error) {
	var found net.Listener
	for name, ln := range sockets {
		if name != control.SocketName && len(sockets) > 1 {
			return nil, &hintError{fmt.Errorf("systemd passes a socket called %q", name), "FileDescriptorName=control names the one that torno serves on"}
		}
		if _, ok := ln.(*net.UnixListener); !ok {
			return nil, fmt.Errorf("systemd passes the socket %s, and only Unix sockets are served on", ln.Addr())
		}
		found = ln
	}
	return found, nil
}

// wait serves a broker that is locked until somebody unlocks it, and returns what it opens with. The manager is told that
// it is ready, since it answers, and that it is locked.
func (u *unit) wait(ctx context.Context, c broker.Config) (broker.Config, error) {
	ready := c.Ready
	var l *broker.Locked
	c.Ready = func() { u.say(errors.Join(u.Status(l.Status()), u.Ready())) }
	l = broker.NewLocked(c)
	ctx, done := context.WithCancel(ctx)
	kept := make(chan struct{})
	go func() { defer close(kept); u.keep(ctx, l) }()
	opened, err := l.Serve(ctx)
	done()
	<-kept
	opened.Ready = func() { u.say(u.Status("unlocked")); ready() }
	return opened, err
}

// A served is a broker as its manager sees it.
type served interface {
	Status() string // for people
	Reload(by string) (control.Reloaded, error)
}

// keep does what the manager expects until ctx ends: it says that the broker is alive, and what it does, and reloads.
func (u *unit) keep(ctx context.Context, b served) {
	every := statusInterval
	if w := u.Watchdog(); w > 0 {
		every = min(every, w/3)
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	u.say(u.Status(u.status(b)))
	for {
		select {
		case <-ctx.Done():
			return
		case <-u.hup:
			u.reload(b)
		case <-tick.C:
			u.say(u.Status(u.status(b))) // which waits where the broker is stuck, and then it is not alive
			u.say(u.Alive())
		}
	}
}

// reload has the broker read its file again. A wrong one is said, and the broker goes on as before.
func (u *unit) reload(b served) {
	u.say(u.Reloading())
	text := "reloaded"
	u.problem = ""
	if _, err := b.Reload("SIGHUP"); err != nil {
		u.log.Error("reloading", "err", err)
		u.problem = "not reloaded: " + err.Error()
		text = u.problem
	}
	u.say(errors.Join(u.Status(text), u.Ready()))
}

// status is what the broker does, for people, behind what is wrong.
func (u *unit) status(b served) string {
	if u.problem != "" {
		return u.problem + "; " + b.Status()
	}
	return b.Status()
}

// say logs that the manager could not be told; nothing else comes of it.
func (u *unit) say(err error) {
	if err != nil {
		u.log.Warn("telling the service manager", "err", err)
	}
}

// Close ends what joinUnit began.
func (u *unit) Close() error {
	signal.Stop(u.hup)
	return u.Manager.Close()
}
