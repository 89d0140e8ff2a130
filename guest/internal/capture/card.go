package capture

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Cards returns the names of the machine's network cards: interfaces that a device stands behind, whether
// they are up or not. lo, bridges and other interfaces of the kernel's own making are none.
func Cards() ([]string, error) {
	const dir = "/sys/class/net"
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // a kernel without a network
	}
	if err != nil {
		return nil, err
	}
	var cards []string
	for _, e := range entries {
		if _, err := os.Stat(filepath.Join(dir, e.Name(), "device")); err == nil {
			cards = append(cards, e.Name())
		}
	}
	return cards, nil
}
