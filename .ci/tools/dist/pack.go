package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/goreleaser/nfpm/v2"
	_ "github.com/goreleaser/nfpm/v2/deb" // registers itself
	"github.com/goreleaser/nfpm/v2/files"
	_ "github.com/goreleaser/nfpm/v2/rpm" // registers itself
)

const (
	maintainer  = "The torno authors <torno@torno.internal>"
	summary     = "credentials that an AI agent can use and can never hold"
	description = summary + `
torno runs programs that are not trusted, such as AI agents, in a microVM
without a network card, and a broker on the host that adds credentials to
their requests. The program has no key: the broker decides, adds it, sends
the request and records it.`
)

// qemu is what runs VMs, by architecture and format. Without it namespaces still work.
var qemu = map[string]map[string]string{
	inDeb: {"amd64": "qemu-system-x86", "arm64": "qemu-system-arm"},
	inRPM: {"amd64": "qemu-system-x86-core", "arm64": "qemu-system-aarch64-core"},
}

// pack makes every package, and the bill of materials beside it.
func (r *release) pack() error {
	if err := os.MkdirAll(r.out, 0o755); err != nil {
		return err
	}
	for _, arch := range r.arches {
		for _, format := range []string{inDeb, inRPM} {
			if err := r.nfpm(format, arch); err != nil {
				return fmt.Errorf("%s for %s: %w", format, arch, err)
			}
		}
		name := fmt.Sprintf("torno-%s-linux-%s", packageVersion(r.version, r.time), arch)
		if err := r.create(name+".tar.gz", func(w io.Writer) error { return r.tar(w, name, arch) }); err != nil {
			return err
		}
		if err := r.create(name+".cdx.json", func(w io.Writer) error { return r.bom(w, arch) }); err != nil {
			return err
		}
	}
	return nil
}

// create makes one of the results.
func (r *release) create(name string, write func(io.Writer) error) error {
	var b bytes.Buffer
	if err := write(&b); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return os.WriteFile(filepath.Join(r.out, name), b.Bytes(), 0o644)
}

// nfpm makes a deb or an rpm.
func (r *release) nfpm(format, arch string) error {
	contents, err := r.contents(format, arch)
	if err != nil {
		return err
	}
	scripts := filepath.Join(r.root, ".ci/tools/dist/package")
	info := nfpm.WithDefaults(&nfpm.Info{
		Name: "torno", Arch: arch, Platform: "linux", Version: packageVersion(r.version, r.time), VersionSchema: "none",
		Section: "admin", Priority: "optional", Maintainer: maintainer, Description: description, Vendor: "torno",
		MTime: r.time,
		Overridables: nfpm.Overridables{
			Depends:    map[string][]string{inDeb: {"passwd", "procps", "ca-certificates"}, inRPM: {"ca-certificates"}}[format],
			Recommends: []string{qemu[format][arch], "nftables", "e2fsprogs"},
			Suggests:   map[string][]string{inDeb: {"mmdebstrap"}}[format],
			Scripts: nfpm.Scripts{
				PostInstall: filepath.Join(scripts, "postinstall"), PreRemove: filepath.Join(scripts, "preremove"), PostRemove: filepath.Join(scripts, "postremove"),
			},
			Deb: nfpm.Deb{Compression: "gzip"},
			RPM: nfpm.RPM{Summary: summary, BuildHost: "localhost", Group: "Unspecified", Packager: maintainer, Compression: "zstd"},
		},
	})
	if format == inRPM {
		info.License = "Apache-2.0" // a deb's stands in its file copyright
	}
	for _, f := range contents {
		c := &files.Content{Source: f.from, Destination: f.to, FileInfo: &files.ContentFileInfo{Mode: f.mode, Owner: "root", Group: "root", MTime: r.time}}
		if f.config {
			c.Type = files.TypeConfigNoReplace
		}
		info.Contents = append(info.Contents, c)
	}
	for _, dir := range []string{"/etc/torno", "/usr/share/doc/torno", "/usr/share/doc/torno/examples"} {
		info.Contents = append(info.Contents, &files.Content{Destination: dir, Type: files.TypeDir,
			FileInfo: &files.ContentFileInfo{Mode: 0o755, Owner: "root", Group: "root", MTime: r.time}})
	}
	packager, err := nfpm.Get(format)
	if err != nil {
		return err
	}
	if err := nfpm.PrepareForPackager(info, format); err != nil {
		return err
	}
	return r.create(packager.ConventionalFileName(info), func(w io.Writer) error { return packager.Package(info, w) })
}

// tar makes an archive whose files stand below name.
func (r *release) tar(w io.Writer, name, arch string) error {
	contents, err := r.contents(inTar, arch)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	t := tar.NewWriter(&b)
	made := map[string]bool{}
	for _, f := range contents {
		content, err := os.ReadFile(f.from)
		if err != nil {
			return err
		}
		if err := r.directories(t, made, filepath.Dir(name+f.to)); err != nil {
			return err
		}
		h := &tar.Header{Typeflag: tar.TypeReg, Name: name + f.to, Mode: int64(f.mode), Size: int64(len(content)), ModTime: r.time, Uname: "root", Gname: "root", Format: tar.FormatPAX}
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		if _, err := t.Write(content); err != nil {
			return err
		}
	}
	if err := t.Close(); err != nil {
		return err
	}
	z, err := compressed(b.Bytes())
	if err != nil {
		return err
	}
	_, err = w.Write(z)
	return err
}

// directories writes dir and those above it, once each.
func (r *release) directories(t *tar.Writer, made map[string]bool, dir string) error {
	if dir == "." || made[dir] {
		return nil
	}
	if err := r.directories(t, made, filepath.Dir(dir)); err != nil {
		return err
	}
	made[dir] = true
	return t.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755, ModTime: r.time, Uname: "root", Gname: "root", Format: tar.FormatPAX})
}

// sum writes SHA256SUMS over all results, as sha256sum -c reads it.
func (r *release) sum() error {
	entries, err := os.ReadDir(r.out)
	if err != nil {
		return err
	}
	var sums strings.Builder
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(r.out, e.Name()))
		if err != nil {
			return err
		}
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(b), e.Name())
	}
	return os.WriteFile(filepath.Join(r.out, "SHA256SUMS"), []byte(sums.String()), 0o644)
}
