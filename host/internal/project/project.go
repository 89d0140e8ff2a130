// Package project looks at a directory and says what a program that works there will need: secrets, by name alone, and where it will
// go. What it reads may come from anybody: it opens regular files of bounded size, follows no link, keeps no value, and gives back
// only names and hosts that it has checked.
package project

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

const (
	maxFile  = 16 << 20 // bytes of a file that is looked at; longer ones are passed over
	maxNames = 32       // of files that one pattern matches
	maxKeys  = 64
	maxRules = 32
)

// Found is what a project needs. The zero value needs nothing.
type Found struct {
	Keys  []Key
	Rules []Rule
	Notes []string // what a person should know; one line each
}

// A Key is a secret that is needed.
type Key struct {
	Name string // as control.ValidKey has it
	Why  string // "package.json depends on openai"
	Set  string // arguments of torno secrets set after the agent, where the name alone is not enough
}

// A Rule is a request that will be made.
type Rule struct {
	Text string // as the list allow has it
	Why  string
	Ask  bool // a person should decide whether to want it: it comes from a file that says much
}

// finders look at one kind of file each, in this order.
var finders = []func(*finder){
	envFiles, packageJSON, python, goModule, gitRemotes, agents, aws, containers, lockFiles,
}

// Look looks at dir, which is not searched but for the places where such files are.
func Look(dir string) (Found, error) {
	if _, err := os.ReadDir(dir); err != nil {
		return Found{}, err
	}
	f := &finder{dir: dir}
	for _, find := range finders {
		find(f)
	}
	return f.found, nil
}

// A finder collects.
type finder struct {
	dir   string
	found Found
}

// read returns a file's content, and false if it is not there, or is nothing that is looked at.
func (f *finder) read(name string) (string, bool) {
	b, err := readFile(filepath.Join(f.dir, name))
	return string(b), err == nil
}

func readFile(path string) ([]byte, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return nil, fmt.Errorf("%s is nothing to look at", path)
	}
	return io.ReadAll(io.LimitReader(file, maxFile))
}

// there reports whether something of that name is there, and no link.
func (f *finder) there(name string) bool {
	info, err := os.Lstat(filepath.Join(f.dir, name))
	return err == nil && info.Mode()&fs.ModeSymlink == 0
}

// names returns the names in the project's directory that a pattern matches.
func (f *finder) names(pattern string) []string {
	found, err := filepath.Glob(filepath.Join(escapeGlob(f.dir), pattern))
	if errors.Is(err, filepath.ErrBadPattern) {
		return nil
	}
	found = found[:min(len(found), maxNames)]
	for i := range found {
		found[i] = filepath.Base(found[i])
	}
	return found
}

// escapeGlob takes the meaning of a directory's own signs away.
func escapeGlob(dir string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(dir)
}

// key adds a secret, once; more reasons are added to it.
func (f *finder) key(name, set, why string) {
	if !control.ValidKey(name) {
		return
	}
	if i := slices.IndexFunc(f.found.Keys, func(k Key) bool { return k.Name == name }); i >= 0 {
		if k := &f.found.Keys[i]; !strings.Contains(k.Why, why) && len(k.Why) < 120 {
			k.Why += "; " + why
		}
		return
	}
	if len(f.found.Keys) < maxKeys {
		f.found.Keys = append(f.found.Keys, Key{Name: name, Why: why, Set: set})
	}
}

// publicName is a name that can be the internet's: no address, no name of one label.
var publicName = regexp.MustCompile(`^(?:[a-z0-9-]+\.)+[a-z][a-z0-9-]*$`)

// rule adds a rule, once, if its host is one.
func (f *finder) rule(methods, host, path, why string, ask bool) {
	host, err := protocol.ParseHost(host)
	if err != nil || !publicName.MatchString(host) {
		return
	}
	text := host + path
	if methods != "" {
		text = methods + " " + text
	}
	if len(f.found.Rules) < maxRules && !slices.ContainsFunc(f.found.Rules, func(r Rule) bool { return r.Text == text }) {
		f.found.Rules = append(f.found.Rules, Rule{Text: text, Why: why, Ask: ask})
	}
}

func (f *finder) note(format string, args ...any) {
	f.found.Notes = append(f.found.Notes, fmt.Sprintf(format, args...))
}
