package pluginhost

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"strconv"

	"golang.org/x/sys/unix"

	"torno.internal/broker/internal/confine"
	"torno.internal/broker/plugin"
	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// readConfig reads what the plugin is told. The caller wipes the files.
func (s *supervisor) readConfig() (plugin.Config, error) {
	c := plugin.Config{JSON: s.config.Config, Files: map[string][]byte{}}
	if len(c.JSON) == 0 {
		c.JSON = []byte("{}")
	}
	for name, path := range s.config.Files {
		content, err := readFile(path)
		if err != nil {
			wipeFiles(c.Files)
			return plugin.Config{}, s.fail(CodeConfig, fmt.Sprintf("the file %s: %v", name, err), "files in broker.toml are such that only the broker's user can read them")
		}
		c.Files[name] = content
	}
	return c, nil
}

// readFile reads a file that others can't.
func readFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%q is no file", path)
	case info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("%q is open to others (chmod 600)", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, plugin.MaxConfig+1))
	if err == nil && len(b) > plugin.MaxConfig {
		err = fmt.Errorf("%q has more than %d bytes", path, plugin.MaxConfig)
	}
	if err != nil {
		secret.Wipe(b)
		return nil, err
	}
	return b, nil
}

func wipeFiles(files map[string][]byte) {
	for _, b := range files {
		secret.Wipe(b)
	}
}

// maxFiles bounds how many files a plugin is told the contents of.
const maxFiles = 16

// Check reports what of a plugin's declaration makes no sense, without looking at its program.
func Check(name string, p *control.Plugin) error {
	switch {
	case !control.ValidPlugin(name):
		return fmt.Errorf("a plugin's name has %s", control.PluginGrammar)
	case p.Kind != control.PluginSource && p.Kind != control.PluginSigner:
		return fmt.Errorf("kind is %q, neither %q nor %q", p.Kind, control.PluginSource, control.PluginSigner)
	case !confine.CleanPath(p.Path):
		return fmt.Errorf("path %q is not absolute and in its normal form", p.Path)
	case len(p.SHA256) != 64:
		return errors.New("sha256 is not that of a program in hex: sha256sum prints it")
	case len(p.Config) > plugin.MaxConfig:
		return fmt.Errorf("config has %d bytes, at most %d fit", len(p.Config), plugin.MaxConfig)
	case len(p.Files) > maxFiles:
		return fmt.Errorf("%d files, at most %d fit", len(p.Files), maxFiles)
	}
	return nil
}

// lookUpUser returns the ids of a user by his name or number.
func lookUpUser(name string) (*confine.User, error) {
	u, err := user.Lookup(name)
	if err != nil {
		if u, err = user.LookupId(name); err != nil {
			return nil, fmt.Errorf("user %q: %w", name, err)
		}
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	return &confine.User{UID: uint32(uid), GID: uint32(gid)}, nil
}
