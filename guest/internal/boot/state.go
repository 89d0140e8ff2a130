package boot

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"torno.internal/protocol"
)

// Where an attached guest keeps its session, so that a restart of the service survives. /run is memory: the
// next boot of the machine finds nothing.
const (
	stateDir  = "/run/torno"
	stateFile = stateDir + "/session"
	maxState  = 1 << 20 // bytes
)

// A state is what is kept: hello's answer, with the token, and whose answer it is.
type state struct {
	Broker string                  `json:"broker"` // address
	Hello  *protocol.HelloResponse `json:"hello"`
}

// readState reads the answer that broker gave, or nil if none is kept. A file that is not root's alone, or is
// not what writeState writes, is an error.
func readState(path, broker string) (*protocol.HelloResponse, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.Mode().IsRegular() || int(stat.Uid) != os.Geteuid() || info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%q is not a file that is ours alone", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxState+1))
	if err != nil {
		return nil, err
	}
	hello, err := decodeState(b, broker)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", path, err)
	}
	return hello, nil
}

func decodeState(b []byte, broker string) (*protocol.HelloResponse, error) {
	if len(b) > maxState {
		return nil, fmt.Errorf("more than %d bytes", maxState)
	}
	var s state
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, errors.New("not the state of a session") // the cause might quote it
	}
	switch {
	case s.Hello == nil || len(s.Hello.Token) != protocol.TokenSize || s.Hello.CA == "" || s.Hello.Session == "":
		return nil, errors.New("not the whole state of a session")
	case s.Broker != broker:
		return nil, fmt.Errorf("a session of the broker at %q, not %q", s.Broker, broker)
	}
	return s.Hello, nil
}

// writeState keeps broker's answer for the next process of this machine's.
func writeState(path, broker string, hello *protocol.HelloResponse) error {
	b, err := json.Marshal(state{broker, hello})
	if err != nil {
		return err
	}
	return writePrivate(path, b, os.Geteuid())
}
