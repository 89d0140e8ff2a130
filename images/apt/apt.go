// Package apt gets Debian's packages by the machine's own apt, which checks signatures against the machine's own
// keys. It leaves the machine's packages alone: apt is shown a system with nothing on it.
package apt

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A Package is one, to the byte.
type Package struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Arch    string `json:"arch"` // as Debian says: amd64, or all
	Size    int64  `json:"size"` // bytes of the package file
	SHA256  string `json:"sha256"`
}

// What a package may be called: these are parts of its file's name, too.
var (
	validName    = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]{0,100}$`)
	validVersion = regexp.MustCompile(`^[0-9][A-Za-z0-9.+:~-]{0,200}$`)
	validArch    = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,30}$`)
	validSHA256  = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// maxSize bounds a package file, in bytes.
const maxSize = 4 << 30

// Check refuses what is no package.
func (p Package) Check() error {
	if !ValidName(p.Name) || !validVersion.MatchString(p.Version) || !validArch.MatchString(p.Arch) || !validSHA256.MatchString(p.SHA256) || p.Size <= 0 || p.Size > maxSize {
		return fmt.Errorf("package %.100q, version %.100q for %.40q, %d bytes, SHA-256 %.70q", p.Name, p.Version, p.Arch, p.Size, p.SHA256)
	}
	return nil
}

// ValidName reports whether a package can be called so.
func ValidName(name string) bool { return validName.MatchString(name) }

// File returns the name that apt gives the package file.
func (p Package) File() string {
	return p.Name + "_" + strings.ReplaceAll(p.Version, ":", "%3a") + "_" + p.Arch + ".deb"
}

// A Report is told how far something is, out of total bytes; total 0: not known.
type Report func(what string, done, total int64)

var (
	// ErrMissing means that there is no apt.
	ErrMissing = errors.New("apt is not installed")
	// ErrGone means that a package is not, or no longer, where apt looks.
	ErrGone = errors.New("not to be had")
)

// An Apt looks for packages in sources. Its directory keeps what it got.
type Apt struct {
	Dir     string   // of its own; made if need be
	Sources []string // lines of sources.list(5); nil: the machine's own
}

// maxOutput bounds what apt may say, in bytes.
const maxOutput = 16 << 20

// command prepares apt-get with an empty system in front of it.
func (a Apt) command(ctx context.Context, args ...string) (*exec.Cmd, error) {
	if _, err := exec.LookPath("apt-get"); err != nil {
		return nil, ErrMissing
	}
	dir, err := filepath.Abs(a.Dir)
	if err != nil {
		return nil, err
	}
	status, sources := filepath.Join(dir, "status"), filepath.Join(dir, "sources.list")
	archives := filepath.Join(dir, "archives") // stays empty but for what is half there: apt doesn't name what it finds in it
	options := []string{
		"Dir::State::status=" + status, "Dir::State::extended_states=" + filepath.Join(dir, "extended_states"),
		"Dir::Cache=" + dir, "Dir::Cache::Archives=" + archives,
		"Dir::Etc::Preferences=/dev/null", "Dir::Etc::PreferencesParts=/dev/null",
		"APT::Install-Recommends=false", "APT::Sandbox::User=root", "Acquire::ForceHash=SHA256", "Debug::NoLocking=true",
	}
	if a.Sources != nil {
		options = append(options, "Dir::Etc::SourceList="+sources, "Dir::Etc::SourceParts=/dev/null")
	}
	for _, err := range []error{
		os.MkdirAll(filepath.Join(archives, "partial"), 0o755), os.WriteFile(status, nil, 0o644),
		os.WriteFile(sources, []byte(strings.Join(a.Sources, "\n")+"\n"), 0o644),
	} {
		if err != nil {
			return nil, err
		}
	}
	all := []string{"-qq"}
	for _, o := range options {
		all = append(all, "-o", o)
	}
	cmd := exec.CommandContext(ctx, "apt-get", append(all, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	return cmd, nil
}

// Resolve returns the packages of those names, or those that match those patterns (apt-patterns(7)), and all that they need.
func (a Apt) Resolve(ctx context.Context, names ...string) ([]Package, error) {
	cmd, err := a.command(ctx, append([]string{"--print-uris", "-y", "install"}, names...)...)
	if err != nil {
		return nil, err
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, failure(ctx, "looking for packages", &stderr)
	}
	return parseURIs(out)
}

// uriLine is a line of apt-get --print-uris: the address, the file's name, its size and its digest.
var uriLine = regexp.MustCompile(`^'[^']*' ([a-z0-9][a-z0-9+.-]*)_([^_ ]+)_([a-z0-9-]+)\.deb ([0-9]+) SHA256:([0-9a-f]{64})$`)

// parseURIs reads what apt would download.
func parseURIs(out []byte) ([]Package, error) {
	var packages []Package
	for line := range bytes.Lines(out[:min(len(out), maxOutput)]) {
		m := uriLine.FindStringSubmatch(strings.TrimSpace(string(line)))
		if m == nil {
			return nil, fmt.Errorf("apt-get --print-uris said %.200q", line)
		}
		version, err := url.PathUnescape(m[2])
		if err != nil {
			return nil, fmt.Errorf("version of %q: %w", m[1], err)
		}
		size, err := strconv.ParseInt(m[4], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("size of %q: %w", m[1], err)
		}
		p := Package{m[1], version, m[3], size, m[5]}
		if err := p.Check(); err != nil {
			return nil, err
		}
		packages = append(packages, p)
	}
	slices.SortFunc(packages, func(a, b Package) int { return strings.Compare(a.Name, b.Name) })
	return packages, nil
}

var (
	noVersion = regexp.MustCompile(`Version '([^']*)' for '([^']*)' was not found`)
	noPackage = regexp.MustCompile(`(?:Unable to locate package|Can't find a source to download version '[^']*' of) '?([^\s']+)`)
)

// failure makes an error of what apt said.
func failure(ctx context.Context, what string, stderr *bytes.Buffer) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var gone []string
	for _, m := range noVersion.FindAllStringSubmatch(stderr.String(), -1) {
		gone = append(gone, m[2]+" "+m[1])
	}
	for _, m := range noPackage.FindAllStringSubmatch(stderr.String(), -1) {
		gone = append(gone, m[1])
	}
	if len(gone) > 0 {
		return fmt.Errorf("%w: %s", ErrGone, strings.Join(gone, ", "))
	}
	return fmt.Errorf("%s: apt-get: %s", what, strings.TrimSpace(stderr.String()[:min(stderr.Len(), 4<<10)]))
}

// status reads apt's reports: dlstatus:N:PERCENT:TEXT.
func status(r io.Reader, total int64, report func(done int64)) {
	for s := bufio.NewScanner(r); s.Scan(); {
		fields := strings.SplitN(s.Text(), ":", 4)
		if len(fields) < 3 || fields[0] != "dlstatus" {
			continue
		}
		if percent, err := strconv.ParseFloat(fields[2], 64); err == nil && percent >= 0 && percent <= 100 {
			report(int64(percent / 100 * float64(total)))
		}
	}
}
