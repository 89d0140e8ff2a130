package workspace

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Bounds on following links: as many as Linux does on the way to one file, and how often what they lead to is
// searched for further ones.
const (
	maxHops   = 40
	maxRounds = 16
)

// codeTable says what of the workspace this machine executes: by its name, by git's configuration, or by a link of
// such a name.
func (w *Workspace) codeTable() *codeTable {
	rows := w.gitRows()
	links := w.links()
	seen := map[string]bool{}
	t := newCodeTable(rows, w.isGit)
	for range maxRounds {
		before := len(rows)
		for _, link := range links {
			why := t.why(link)
			if why == "" {
				continue
			}
			w.follow(link, func(name string) {
				if !seen[name] && !w.isGit(name) { // which has a table of its own
					seen[name] = true
					rows = append(rows, rowsOf(name, "a link leads there: "+why)...)
				}
			})
		}
		if len(rows) == before {
			break
		}
		t = newCodeTable(rows, w.isGit)
	}
	return t
}

// links returns the symbolic links that are here now, also those that did not go in: what they lead to may have.
func (w *Workspace) links() []string {
	var all []string
	_ = fs.WalkDir(w.root.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		switch {
		case err != nil || e.IsDir() && isOurs(name):
			return fs.SkipDir // can't be read, and so not executed either
		case e.Type() == fs.ModeSymlink:
			all = append(all, name)
		}
		return nil
	})
	return all
}

// follow calls found with each name in the workspace that stands on the way from a link to where it leads, which may
// go outside and come back, and last with that.
func (w *Workspace) follow(link string, found func(name string)) {
	at, todo := w.dir, strings.Split(link, "/")
	report := func(path string) {
		if name, ok := strings.CutPrefix(path, w.dir+"/"); ok && name != link {
			found(name)
		}
	}
	for hops := 0; len(todo) > 0; {
		next := filepath.Join(at, todo[0])
		todo = todo[1:]
		info, err := os.Lstat(next)
		if err != nil || info.Mode().Type() != os.ModeSymlink {
			at = next
			continue
		}
		report(next)
		target, err := os.Readlink(next)
		if hops++; err != nil || hops > maxHops {
			return
		}
		if filepath.IsAbs(target) {
			at = "/"
		}
		todo = append(strings.Split(target, "/"), todo...)
	}
	report(at)
}
