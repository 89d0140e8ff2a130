package workspace

import (
	"encoding/gob"
	"fmt"
	"io"
	"os"
)

// Save writes what went in, so that Load can take changes back after this process has ended.
func (w *Workspace) Save(to io.Writer) error {
	e := gob.NewEncoder(to)
	if err := e.Encode(w.dir); err != nil {
		return err
	}
	for i := range w.went {
		if err := e.Encode(&w.went[i]); err != nil {
			return err
		}
	}
	return nil
}

// SavedDir returns the directory of the workspace that Save wrote.
func SavedDir(from io.Reader) (string, error) {
	var dir string
	if err := gob.NewDecoder(from).Decode(&dir); err != nil {
		return "", fmt.Errorf("reading what went in: %w", err)
	}
	return dir, nil
}

// Load returns the workspace that Save wrote, ready for Receive.
func Load(from io.Reader) (*Workspace, error) {
	w := &Workspace{}
	d := gob.NewDecoder(from)
	if err := d.Decode(&w.dir); err != nil {
		return nil, fmt.Errorf("reading what went in: %w", err)
	}
	for {
		var went Went
		err := d.Decode(&went)
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("reading what went in: %w", err)
		}
		w.went = append(w.went, went)
	}
	var err error
	w.root, err = os.OpenRoot(w.dir)
	return w, err
}
