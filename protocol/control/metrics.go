package control

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
)

// Metrics say where numbers about the broker can be read. The zero value is nowhere.
type Metrics struct {
	Listen string `json:"listen,omitempty"` // 127.0.0.1:9118 or unix:///P
}

// ParseMetricsListen reads where metrics are served: a loopback address and port, or unix:// and a path. What it returns is for
// net.Listen.
func ParseMetricsListen(s string) (network, address string, err error) {
	if path, ok := strings.CutPrefix(s, "unix://"); ok {
		if !filepath.IsAbs(path) || filepath.Clean(path) != path {
			return "", "", fmt.Errorf("%q is not an absolute path", path)
		}
		return "unix", path, nil
	}
	a, err := netip.ParseAddrPort(s)
	switch {
	case err != nil:
		return "", "", fmt.Errorf("%q is neither an address with a port, as in 127.0.0.1:9118, nor unix:///path", s)
	case !a.Addr().IsLoopback():
		return "", "", errors.New("metrics go out in the clear and to whoever asks, so they are served on a loopback address or a Unix socket alone")
	}
	return "tcp", a.String(), nil
}
