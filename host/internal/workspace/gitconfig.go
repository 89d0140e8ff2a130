package workspace

import (
	"path"
	"slices"
	"strings"
)

// Bounds on a repository's configuration: bytes of one file that are looked at, and how many files include one another.
const (
	maxGitConfig  = 1 << 20
	maxGitConfigs = 64
)

// gitRows are what the workspace's own repository takes commands from beside its table: files of the
// workspace that its configuration names, such as core.hooksPath, included files and drivers.
func (w *Workspace) gitRows() []Row {
	var rows []Row
	files := []string{".git/config", ".git/config.worktree"}
	for i := 0; i < len(files) && i < maxGitConfigs; i++ {
		info, err := w.root.Stat(files[i])
		if err != nil || !info.Mode().IsRegular() || info.Size() > maxGitConfig {
			continue
		}
		text, err := w.root.ReadFile(files[i])
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			named, included := w.namedBy(line, path.Dir(files[i]))
			for _, name := range append(named, included...) {
				rows = append(rows, rowsOf(name, "the repository's configuration names it")...)
			}
			for _, name := range included {
				if !slices.Contains(files, name) {
					files = append(files, name)
				}
			}
		}
	}
	return rows
}

// rowsOf returns rows for one name and what is below it.
func rowsOf(name, why string) []Row {
	escaped := strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(name)
	return []Row{{escaped, why}, {escaped + "/**", why}}
}

// notFiles are keys of a configuration whose values look like names of files and are none.
var notFiles = []string{"url", "pushurl", "fetch", "push", "merge"}

// namedBy returns the names in the workspace that a line of a configuration in the directory dir speaks of, whether
// there is such a file or the guest has yet to make it, and those that the line may include.
func (w *Workspace) namedBy(line, dir string) (named, included []string) {
	key, value, ok := strings.Cut(line, "=")
	if !ok {
		return nil, nil
	}
	if _, rest, section := strings.Cut(key, "]"); section { // [include] path = x
		key = rest
	}
	key = strings.ToLower(strings.TrimSpace(key))
	if slices.Contains(notFiles, key) {
		return nil, nil
	}
	add := func(names []string, name string) []string {
		if name = strings.TrimPrefix(name, w.dir+"/"); name == "." || name == ".." || path.IsAbs(name) || strings.HasPrefix(name, "../") {
			return names
		}
		return append(names, name)
	}
	words := strings.FieldsFunc(value, func(r rune) bool { return strings.ContainsRune(" \t\r\n\"'!;&|()", r) })
	for _, word := range append(words, strings.Trim(strings.TrimSpace(value), `"`)) {
		switch {
		case word == "":
		case key == "path" && path.IsAbs(word):
			included = add(included, path.Clean(word))
		case key == "path":
			included = add(included, path.Join(dir, word))
		case key == "hookspath", strings.Contains(word, "/") && !strings.HasPrefix(strings.TrimPrefix(word, "+"), "refs/"):
			named = add(named, path.Clean(word))
		}
	}
	return named, included
}
