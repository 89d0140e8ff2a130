package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"
)

// programs are what is built, and of which package.
var programs = map[string]string{"torno": "./host", "torno-guest": "./guest"}

// shells are those that completions are made for.
var shells = []string{"bash", "zsh", "fish"}

// build builds the programs for each architecture, below stage/ARCH, and for this machine.
func (r *release) build() error {
	for _, arch := range append([]string{runtime.GOARCH}, r.arches...) {
		for name, pkg := range programs {
			path := r.program(arch, name)
			if _, err := os.Stat(path); err == nil {
				continue
			}
			cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w -buildid= -X main.version="+r.version, "-o", path, pkg)
			cmd.Dir, cmd.Stderr = r.root, os.Stderr
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOAMD64=v1", "GOARM64=v8.0", "GOFLAGS=-buildvcs=false", "GOWORK=off")
			if err := cmd.Run(); err != nil {
				return fmt.Errorf("building %s for %s: %w", name, arch, err)
			}
		}
	}
	return nil
}

func (r *release) program(arch, name string) string { return filepath.Join(r.stage, arch, name) }

// texts makes manual pages and completions, and changes in units what packages change.
func (r *release) texts() error {
	torno := r.program(runtime.GOARCH, "torno")
	pages := filepath.Join(r.stage, "manual")
	if err := os.MkdirAll(pages, 0o755); err != nil {
		return err
	}
	if _, err := r.output(torno, "manual", "--date", r.time.Format(time.DateOnly), pages); err != nil {
		return err
	}
	for _, shell := range shells {
		out, err := r.output(torno, "completion", shell)
		if err != nil {
			return err
		}
		if err := r.write(shell, []byte(out+"\n")); err != nil {
			return err
		}
	}
	for _, unit := range []string{"torno.service", "torno.socket"} {
		b, err := os.ReadFile(filepath.Join(r.root, "host/systemd", unit))
		if err != nil {
			return err
		}
		if err := r.write(unit, bytes.ReplaceAll(b, []byte("/usr/local/bin/"), []byte("/usr/bin/"))); err != nil {
			return err
		}
	}
	return r.write("changelog", fmt.Appendf(nil, "torno (%s) stable; urgency=medium\n\n  * CHANGELOG.md beside this file says what has changed.\n\n -- %s  %s\n",
		packageVersion(r.version, r.time), maintainer, r.time.Format(time.RFC1123Z)))
}

// write puts a file into the stage.
func (r *release) write(name string, content []byte) error {
	return os.WriteFile(filepath.Join(r.stage, name), content, 0o644)
}

// compressed returns what gzip makes of content, without name and time.
func compressed(content []byte) ([]byte, error) {
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := z.Write(content); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
