// Package systemd speaks with the service manager that started the process: sd_notify(3) and sd_listen_fds(3), without
// its library. Where nobody of that kind is there all of it does nothing.
package systemd

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A Manager is the service manager of this process. The zero value is none.
type Manager struct {
	conn     *net.UnixConn
	watchdog time.Duration
}

// Connect takes the manager's address from the environment, and out of it: it is not for the processes that this one
// starts.
func Connect() (*Manager, error) {
	env, err := takeEnv("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")
	if err != nil {
		return nil, err
	}
	path, m := env[0], &Manager{watchdog: watchdog(env[1], env[2])}
	switch {
	case path == "":
		return m, nil
	case path[0] != '/' && path[0] != '@':
		return nil, fmt.Errorf("NOTIFY_SOCKET is %q, and only Unix sockets are spoken to", path)
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("the service manager's socket: %w", err)
	}
	m.conn = c
	return m, nil
}

// watchdog returns how often this process must say that it is alive, or 0.
func watchdog(pid, usec string) time.Duration {
	if pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0
	}
	n, err := strconv.ParseUint(usec, 10, 40)
	if err != nil {
		return 0
	}
	return time.Duration(n) * time.Microsecond
}

// takeEnv returns variables and takes them out of the environment.
func takeEnv(names ...string) ([]string, error) {
	values := make([]string, len(names))
	for i, name := range names {
		values[i] = os.Getenv(name)
		if err := os.Unsetenv(name); err != nil {
			return nil, err
		}
	}
	return values, nil
}

// Watchdog returns within which time Alive must be called again and again; 0: nobody waits for it.
func (m *Manager) Watchdog() time.Duration { return m.watchdog }

// Ready says that the service has started, or has taken up its new configuration.
func (m *Manager) Ready() error { return m.notify("READY=1") }

// Reloading says that the service takes up a new configuration, until Ready.
func (m *Manager) Reloading() error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return err
	}
	return m.notify("RELOADING=1", "MONOTONIC_USEC="+strconv.FormatInt(now.Nano()/1000, 10))
}

// Stopping says that the service is about to end.
func (m *Manager) Stopping() error { return m.notify("STOPPING=1") }

// Alive says that the service is not stuck.
func (m *Manager) Alive() error { return m.notify("WATCHDOG=1") }

// Status says, for people, what the service does.
func (m *Manager) Status(text string) error {
	return m.notify("STATUS=" + strings.ReplaceAll(text, "\n", " "))
}

// Close ends the conversation.
func (m *Manager) Close() error {
	if m.conn == nil {
		return nil
	}
	return m.conn.Close()
}

func (m *Manager) notify(assignments ...string) error {
	if m.conn == nil {
		return nil
	}
	_, err := m.conn.Write([]byte(strings.Join(assignments, "\n")))
	return err
}

// firstFD is SD_LISTEN_FDS_START.
const firstFD = 3

// maxFDs bounds how many descriptors a manager may pass.
const maxFDs = 64

// Listeners returns the sockets that the manager listens on for this process, by name, and takes them out of the
// environment. Two of one name are an error.
func Listeners() (map[string]net.Listener, error) {
	env, err := takeEnv("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
	if err != nil || env[0] != strconv.Itoa(os.Getpid()) {
		return nil, err
	}
	n, err := strconv.Atoi(env[1])
	if err != nil || n < 0 || n > maxFDs {
		return nil, fmt.Errorf("LISTEN_FDS is %q", env[1])
	}
	names := strings.Split(env[2], ":")
	all := make(map[string]net.Listener, n)
	for i := range n {
		name := "unknown" // as sd_listen_fds_with_names(3) has it
		if i < len(names) && names[i] != "" {
			name = names[i]
		}
		ln, err := listener(firstFD+i, name)
		if err == nil && all[name] != nil {
			err = errors.Join(fmt.Errorf("two sockets are called %q", name), ln.Close())
		}
		if err != nil {
			for _, other := range all {
				other.Close()
			}
			return nil, err
		}
		all[name] = ln
	}
	return all, nil
}

// listener makes a listener of a descriptor, which no process that this one starts inherits.
func listener(fd int, name string) (net.Listener, error) {
	unix.CloseOnExec(fd)
	f := os.NewFile(uintptr(fd), name)
	defer f.Close() // the listener has a copy
	ln, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("socket %q of the service manager: %w", name, err)
	}
	return ln, nil
}
