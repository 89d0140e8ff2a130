package cli

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"torno.internal/host/internal/run"
)

// maxPorts bounds the ports that one run publishes.
const maxPorts = 32

// parsePublish reads PORT, or HOST:GUEST where HOST may be 0 for any port that is free.
func parsePublish(s string) (host, guest uint16, err error) {
	h, g, two := strings.Cut(s, ":")
	if !two {
		g = h
	}
	hostPort, err1 := strconv.ParseUint(h, 10, 16)
	guestPort, err2 := strconv.ParseUint(g, 10, 16)
	if err1 != nil || err2 != nil || guestPort == 0 || hostPort == 0 && !two {
		return 0, 0, usageError{&hintError{fmt.Errorf("--publish %q is no port", s), "--publish 8080, or --publish 3000:8080 where the port is to be another one here"}}
	}
	return uint16(hostPort), uint16(guestPort), nil
}

// checkPublish refuses what can't be published.
func checkPublish(specs []string) error {
	if len(specs) > maxPorts {
		return usageError{fmt.Errorf("%d ports are published, at most %d can be", len(specs), maxPorts)}
	}
	for _, s := range specs {
		if _, _, err := parsePublish(s); err != nil {
			return err
		}
	}
	return nil
}

// listenPublished listens on the loopback address for each port, and says what leads where.
func listenPublished(specs []string) (published []run.Published, err error) {
	defer func() {
		if err != nil {
			closePublished(published)
		}
	}()
	for _, s := range specs {
		host, guest, err := parsePublish(s)
		if err != nil {
			return published, err
		}
		ln, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(host)})
		switch {
		case errors.Is(err, unix.EADDRINUSE):
			return published, &hintError{fmt.Errorf("port %d of this machine is taken", host), fmt.Sprintf("--publish 0:%d takes any that is free", guest)}
		case errors.Is(err, unix.EACCES):
			return published, &hintError{fmt.Errorf("port %d of this machine: %w", host, unix.EACCES), fmt.Sprintf("--publish 0:%d takes any that is free", guest)}
		case err != nil:
			return published, err
		}
		published = append(published, run.Published{Listener: ln, Port: guest})
		say(fmt.Sprintf("http://%s leads to port %d inside", ln.Addr(), guest))
	}
	return published, nil
}

func closePublished(published []run.Published) {
	for _, p := range published {
		p.Listener.Close()
	}
}
