package rootfs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"torno.internal/images/apt"
)

// A Lock says which packages an image is made of, to the byte. The same lock makes the same file system.
type Lock struct {
	Suite    string        `json:"suite"` // release of Debian or Ubuntu, by its code name
	Arch     string        `json:"arch"`  // GOARCH
	Time     time.Time     `json:"time"`  // no file is newer
	Include  []string      `json:"include"`
	Packages []apt.Package `json:"packages"` // all that Include needs, by name
}

// basePackages are what Base holds beside what every Debian has.
var basePackages = []string{
	"ca-certificates", "curl", "git", "iproute2", "less", "nodejs", "openssh-client", "procps", "python3", "python3-requests", "xz-utils",
}

// everyPackage is what every Debian has, as patterns of apt. The architecture, which Debian calls as Go does, is named: some
// releases of apt find nothing that is "native", and say nothing.
var everyPackage = []string{"apt", "?essential", "?priority(required)?architecture(" + runtime.GOARCH + ")"}

// LockPath returns where the lock of an image is kept.
func (s Store) LockPath(name string) string { return filepath.Join(s.Dir, name+".lock.json") }

// aptFor returns the apt that finds a lock's packages.
func (s Store) aptFor(ctx context.Context, suite string) (apt.Apt, error) {
	sources, err := apt.Sources(ctx, suite)
	if err == nil && len(sources) == 0 {
		err = fmt.Errorf("this machine has no list of the packages of %q", suite)
	}
	if err != nil {
		return apt.Apt{}, &Error{err, "apt-get update, on a machine of that release; elsewhere torno image build --from ROOTFS.tar"}
	}
	return apt.Apt{Dir: filepath.Join(s.Dir, ".packages"), Sources: sources}, nil
}

// Resolve returns a lock of the newest packages that this machine's release has: those to include, what every Debian
// has, and what they need. Apt's signatures are what they are trusted by.
func (s Store) Resolve(ctx context.Context, include []string) (*Lock, error) {
	return s.resolve(ctx, include, everyPackage)
}

func (s Store) resolve(ctx context.Context, include, every []string) (*Lock, error) {
	suite, err := suite()
	if err != nil {
		return nil, err
	}
	a, err := s.aptFor(ctx, suite)
	if err != nil {
		return nil, err
	}
	l := &Lock{Suite: suite, Arch: runtime.GOARCH, Time: time.Now().UTC().Truncate(time.Second), Include: include}
	l.Packages, err = a.Resolve(ctx, slices.Concat(every, include)...)
	if err != nil {
		return nil, packageError(err)
	}
	return l, l.check()
}

// packageError adds what helps to an error of apt's.
func packageError(err error) error {
	switch {
	case errors.Is(err, apt.ErrGone):
		return &Error{fmt.Errorf("packages: %w", err), "torno image lock --update takes the versions that there are now; apt-get update refreshes the list of them"}
	case errors.Is(err, apt.ErrMissing):
		return &Error{err, "torno image build --from ROOTFS.tar, on machines without it"}
	}
	return explain(err)
}

// maxLock bounds a lock file, in bytes.
const maxLock = 8 << 20

// ReadLock reads a lock. The error wraps fs.ErrNotExist if it is not there.
func ReadLock(path string) (*Lock, error) {
	info, err := os.Stat(path)
	if err == nil && info.Size() > maxLock {
		err = fmt.Errorf("%q has %d bytes, want at most %d", path, info.Size(), maxLock)
	}
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	l, err := decodeLock(b)
	if err != nil {
		return nil, &Error{fmt.Errorf("lock %q: %w", path, err), "torno image lock --update makes it anew"}
	}
	return l, nil
}

func decodeLock(b []byte) (*Lock, error) {
	var l Lock
	if err := json.Unmarshal(b, &l); err != nil {
		return nil, err
	}
	if err := l.check(); err != nil {
		return nil, err
	}
	return &l, nil
}

var validSuite = regexp.MustCompile(`^[a-z][a-z0-9]{0,30}$`)

const maxPackages = 10_000

// check refuses a lock that is none, or another machine's.
func (l *Lock) check() error {
	if !validSuite.MatchString(l.Suite) || len(l.Packages) == 0 || len(l.Packages) > maxPackages || l.Time.Unix() < 0 {
		return fmt.Errorf("suite %.40q, %d packages", l.Suite, len(l.Packages))
	}
	if l.Arch != runtime.GOARCH {
		return fmt.Errorf("it is for %.40q, this machine is %s", l.Arch, runtime.GOARCH)
	}
	for _, name := range l.Include {
		if !apt.ValidName(name) {
			return fmt.Errorf("package name %.100q", name)
		}
	}
	for i, p := range l.Packages {
		if err := p.Check(); err != nil {
			return err
		}
		if i > 0 && l.Packages[i-1].Name >= p.Name {
			return fmt.Errorf("package %.100q comes twice, or not in order", p.Name)
		}
	}
	return nil
}

// Write writes the lock, whole or not at all.
func (l *Lock) Write(path string) error {
	b, err := json.MarshalIndent(l, "", "\t")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".lock-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails once the file is renamed
	_, err = f.Write(append(b, '\n'))
	if err := errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return explain(err)
	}
	return os.Rename(f.Name(), path)
}

// Changes says, for people, what is different in another lock.
func (l *Lock) Changes(to *Lock) []string {
	versions := map[string]string{}
	for _, p := range l.Packages {
		versions[p.Name] = p.Version
	}
	var changes []string
	for _, p := range to.Packages {
		old, ok := versions[p.Name]
		if delete(versions, p.Name); old != p.Version {
			changes = append(changes, strings.Join(strings.Fields(p.Name+" "+old+arrow(ok)+p.Version), " "))
		}
	}
	for name, version := range versions {
		changes = append(changes, name+" "+version+" is gone")
	}
	slices.Sort(changes)
	return changes
}

func arrow(changed bool) string {
	if changed {
		return " -> "
	}
	return "new: "
}

// lockFor returns the lock to build from: the one that is there, else a new one, which is written. What is to be
// included must be what the lock was made for.
func (s Store) lockFor(ctx context.Context, b Build) (*Lock, error) {
	l, err := ReadLock(b.Lock)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		b.Report("choosing packages", 0, 0)
		if b.Include == nil {
			b.Include = Includes(nil)
		}
		every := everyPackage
		if b.bare {
			every = nil
		}
		if l, err = s.resolve(ctx, b.Include, every); err != nil {
			return nil, err
		}
		return l, l.Write(b.Lock)
	case err != nil:
		return nil, err
	case b.Include != nil && !slices.Equal(b.Include, l.Include):
		return nil, &Error{fmt.Errorf("the lock %q is for other packages: %s", b.Lock, strings.Join(l.Include, ", ")), "torno image lock --update, with the same --include"}
	}
	return l, nil
}
