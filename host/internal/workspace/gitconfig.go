package workspace

import (
	"path"
	"strings"
)

// maxGitConfig bounds the part of a repository's configuration that is looked at, in bytes.
const maxGitConfig = 1 << 20

// gitRows are what the workspace's own repository takes commands from beside its table: files of the
// workspace that its configuration names, such as core.hooksPath, included files and drivers.
func (w *Workspace) gitRows() []Row {
	if went := w.find(".git/config"); went == nil || went.Size > maxGitConfig {
		return nil
	}
	text, err := w.root.ReadFile(".git/config")
	if err != nil || len(text) > maxGitConfig {
		return nil
	}
	var rows []Row
	for line := range strings.Lines(string(text)) {
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			continue
		}
		key = strings.ToLower(strings.TrimSpace(key))
		for word := range strings.FieldsFuncSeq(value, func(r rune) bool { return strings.ContainsRune(" \t\r\n\"'!;&|()", r) }) {
			name := path.Clean(strings.TrimPrefix(word, w.dir+"/"))
			if key == "path" { // of an included file, from .git on
				name = path.Join(".git", word)
			}
			if w.find(name) == nil || !strings.Contains(word, "/") && key != "hookspath" {
				continue
			}
			escaped := strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(name)
			rows = append(rows, Row{escaped, "the repository's configuration names it"}, Row{escaped + "/**", "the repository's configuration names it"})
		}
	}
	return rows
}
