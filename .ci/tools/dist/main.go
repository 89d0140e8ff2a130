// Command dist makes what people install: deb, rpm and tar.gz for amd64 and arm64, a CycloneDX bill of materials for each
// architecture, and SHA256SUMS of all. The same commit makes the same bytes, wherever and whenever it is built.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// A release is what is made and of what.
type release struct {
	root    string    // the repository
	out     string    // where the results go; made, and emptied before
	stage   string    // what is made on the way
	arches  []string  // as Go says: amd64, arm64
	version string    // as the programs print it
	time    time.Time // of the commit; all files bear it
}

func main() {
	var r release
	flag.StringVar(&r.root, "root", ".", "the repository")
	flag.StringVar(&r.out, "out", "dist", "directory for the results")
	flag.StringVar(&r.version, "version", "", "version, as git describe prints it (default: what it prints)")
	arches := flag.String("arch", "amd64,arm64", "architectures")
	flag.Parse()
	r.arches = strings.Split(*arches, ",")
	if err := r.run(); err != nil {
		fmt.Fprintln(os.Stderr, "dist:", err)
		os.Exit(1)
	}
}

func (r *release) run() error {
	var err error
	if r.root, err = filepath.Abs(r.root); err != nil {
		return err
	}
	if r.out, err = filepath.Abs(r.out); err != nil {
		return err
	}
	if err := r.date(); err != nil {
		return err
	}
	if err := os.RemoveAll(r.out); err != nil {
		return err
	}
	if r.stage, err = os.MkdirTemp("", "torno-dist"); err != nil {
		return err
	}
	defer os.RemoveAll(r.stage)
	for _, make := range []func() error{r.build, r.texts, r.pack, r.sum} {
		if err := make(); err != nil {
			return err
		}
	}
	return nil
}

// date finds the version and the time of the commit, where they are not given.
func (r *release) date() error {
	if r.version == "" {
		out, err := r.output("git", "describe", "--tags", "--always", "--dirty")
		if err != nil {
			return err
		}
		r.version = out
	}
	seconds := os.Getenv("SOURCE_DATE_EPOCH")
	if seconds == "" {
		out, err := r.output("git", "log", "-1", "--format=%ct")
		if err != nil {
			return err
		}
		seconds = out
	}
	n, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return fmt.Errorf("the time of the commit: %w", err)
	}
	r.time = time.Unix(n, 0).UTC()
	return nil
}

// output runs a program in the repository and returns what it prints.
func (r *release) output(name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = r.root
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return "", fmt.Errorf("%s %s: %w: %s", name, args[0], err, exit.Stderr)
	}
	return strings.TrimSpace(string(out)), err
}
