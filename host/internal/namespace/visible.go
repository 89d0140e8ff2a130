package namespace

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Visible returns the directories to bind, by their real paths, without those that the guest sees
// anyway. It refuses those that would show more than meant.
func (s Spec) Visible() ([]string, error) {
	var dirs []string
	for i, d := range append([]string{s.Dir}, s.Mounts...) {
		if d == "" && i == 0 {
			continue
		}
		path, err := realDir(d)
		if err != nil {
			return nil, err
		}
		if err := s.checkHidden(path); err != nil {
			return nil, err
		}
		if !provided(path) {
			dirs = append(dirs, path)
		}
	}
	return outermost(dirs), nil
}

func realDir(d string) (string, error) {
	abs, err := filepath.Abs(d)
	if err == nil {
		abs, err = filepath.EvalSymlinks(abs)
	}
	if err != nil {
		return "", fmt.Errorf("directory %q: %w", d, err)
	}
	info, err := os.Stat(abs)
	if err != nil {
		return "", fmt.Errorf("directory %q: %w", d, err)
	}
	if !info.IsDir() {
		return "", fmt.Errorf("%q is not a directory", d)
	}
	return abs, nil
}

func (s Spec) checkHidden(path string) error {
	const hint = "change to a directory that holds the project alone"
	for _, h := range append([]string{s.Home}, s.Hidden...) {
		real, err := filepath.EvalSymlinks(h)
		if h == "" || err != nil {
			continue // what is not there cannot be seen
		}
		if within(real, path) || h != s.Home && within(path, real) {
			return hinted(hint, fmt.Errorf("directory %q would show %q to the workload", path, real))
		}
	}
	if slices.Contains(ownPlaces, path) {
		return hinted(hint, fmt.Errorf("directory %q is another one inside", path))
	}
	return nil
}

// within reports whether path is dir or lies below it. Both are clean and absolute.
func within(path, dir string) bool {
	return path == dir || dir == "/" || strings.HasPrefix(path, dir+"/")
}

// outermost drops what lies below another of dirs, which shows it already.
func outermost(dirs []string) []string {
	var kept []string
	for i, d := range dirs {
		covered := false
		for j, o := range dirs {
			if within(d, o) && (d != o || j < i) {
				covered = true
			}
		}
		if !covered {
			kept = append(kept, d)
		}
	}
	return kept
}
