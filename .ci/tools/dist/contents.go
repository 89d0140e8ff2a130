package main

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// The formats that a file can be in alone.
const (
	inDeb = "deb"
	inRPM = "rpm"
	inTar = "tar.gz"
)

// A file is one of a package.
type file struct {
	from    string // in the repository, or below "stage:"
	to      string
	mode    os.FileMode
	config  bool     // what the operator changes stays
	gzip    bool     // is compressed on the way, and gets ".gz"
	formats []string // without: all
}

// fixed are the files but for the manual.
var fixed = []file{
	{from: "stage:ARCH/torno", to: "/usr/bin/torno", mode: 0o755},
	{from: "stage:ARCH/torno-guest", to: "/usr/bin/torno-guest", mode: 0o755},
	{from: "stage:torno.service", to: "/usr/lib/systemd/system/torno.service"},
	{from: "stage:torno.socket", to: "/usr/lib/systemd/system/torno.socket"},
	{from: "host/systemd/torno.sysusers", to: "/usr/lib/sysusers.d/torno.conf"},
	{from: "host/systemd/torno.tmpfiles", to: "/usr/lib/tmpfiles.d/torno.conf"},
	{from: "host/systemd/broker.toml", to: "/etc/torno/broker.toml", config: true},
	{from: "stage:bash", to: "/usr/share/bash-completion/completions/torno"},
	{from: "stage:fish", to: "/usr/share/fish/vendor_completions.d/torno.fish"},
	{from: "stage:zsh", to: "/usr/share/zsh/vendor-completions/_torno", formats: []string{inDeb}},
	{from: "stage:zsh", to: "/usr/share/zsh/site-functions/_torno", formats: []string{inRPM, inTar}},
	{from: "README.md", to: "/usr/share/doc/torno/README.md"},
	{from: "SECURITY.md", to: "/usr/share/doc/torno/SECURITY.md"},
	{from: "CHANGELOG.md", to: "/usr/share/doc/torno/CHANGELOG.md"},
	{from: "NOTICE", to: "/usr/share/doc/torno/NOTICE", gzip: true},
	{from: "LICENSE", to: "/usr/share/doc/torno/LICENSE", formats: []string{inRPM, inTar}},
	{from: "images/systemd/torno-guest.service", to: "/usr/share/doc/torno/examples/torno-guest.service"},
	{from: ".ci/tools/dist/package/torno.toml", to: "/usr/share/doc/torno/examples/torno.toml"},
	{from: "stage:changelog", to: "/usr/share/doc/torno/changelog", gzip: true, formats: []string{inDeb}},
	{from: ".ci/tools/dist/package/copyright", to: "/usr/share/doc/torno/copyright", formats: []string{inDeb}},
	{from: ".ci/tools/dist/package/lintian-overrides", to: "/usr/share/lintian/overrides/torno", formats: []string{inDeb}},
}

// contents returns the files of one format for one architecture, by where they go. Those that are compressed have been.
func (r *release) contents(format, arch string) ([]file, error) {
	all := slices.Clone(fixed)
	pages, err := os.ReadDir(filepath.Join(r.stage, "manual"))
	if err != nil {
		return nil, err
	}
	for _, p := range pages {
		section := path.Ext(p.Name())[1:]
		all = append(all, file{from: "stage:manual/" + p.Name(), to: "/usr/share/man/man" + section + "/" + p.Name(), gzip: true})
	}
	var out []file
	for _, f := range all {
		if f.formats != nil && !slices.Contains(f.formats, format) {
			continue
		}
		from, staged := strings.CutPrefix(strings.Replace(f.from, "ARCH", arch, 1), "stage:")
		f.from = filepath.Join(r.root, from)
		if staged {
			f.from = filepath.Join(r.stage, from)
		}
		if f.mode == 0 {
			f.mode = 0o644
		}
		if f.gzip {
			if f, err = r.compress(f); err != nil {
				return nil, err
			}
		}
		out = append(out, f)
	}
	slices.SortFunc(out, func(a, b file) int { return strings.Compare(a.to, b.to) })
	return out, nil
}

// compress puts a compressed copy of f into the stage.
func (r *release) compress(f file) (file, error) {
	b, err := os.ReadFile(f.from)
	if err != nil {
		return file{}, err
	}
	z, err := compressed(b)
	if err != nil {
		return file{}, fmt.Errorf("%s: %w", f.from, err)
	}
	name := filepath.Base(f.to) + ".gz"
	f.from, f.to = filepath.Join(r.stage, name), f.to+".gz"
	return f, r.write(name, z)
}
