package namespace

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Ids inside. Root maps rangeSize ids from a range that owns nothing on the host; everybody else maps
// themselves to root and their subordinate ids (subuid(5)) to the rest.
const (
	rangeSize = 1 << 16
	// firstBase begins what systemd leaves to containers (524288 to 1879048191), some way in, where
	// neither its own nor adduser's ranges come first.
	firstBase = 524288 + 4096*rangeSize
	lastBase  = 1879048191 - rangeSize
	agentID   = 1000 // of the workload's user; it must be mapped
)

// IDs is how user and group ids inside map to those of the host.
type IDs struct {
	root     bool
	uid, gid []span
}

// A span maps n ids from inside on to those from outside on.
type span struct{ inside, outside, n uint32 }

// Peer returns the host's user id of root inside, which connects to the session's sockets.
func (ids IDs) Peer() uint32 { return ids.uid[0].outside }

// Agent returns the host's user id of the workload's user.
func (ids IDs) Agent() uint32 {
	for _, s := range ids.uid {
		if s.inside <= agentID && agentID < s.inside+s.n {
			return s.outside + agentID - s.inside
		}
	}
	return ids.uid[0].outside // FindIDs returns no such map
}

// FindIDs returns the map for the calling user. Errors are *Error where a person can mend them.
func FindIDs() (IDs, error) {
	if os.Geteuid() == 0 {
		return rootIDs("/etc/subuid", "/etc/subgid")
	}
	u, err := user.Current()
	if err != nil {
		return IDs{}, fmt.Errorf("who is running this: %w", err)
	}
	ids := IDs{}
	for _, m := range []struct {
		file, tool string
		self       int
		spans      *[]span
	}{{"/etc/subuid", "newuidmap", os.Geteuid(), &ids.uid}, {"/etc/subgid", "newgidmap", os.Getegid(), &ids.gid}} {
		if _, err := exec.LookPath(m.tool); err != nil {
			return IDs{}, hinted("apt install uidmap", fmt.Errorf("namespaces as a normal user need %s: not found", m.tool))
		}
		ranges, err := subordinate(m.file)
		if err != nil {
			return IDs{}, err
		}
		if *m.spans, err = userSpans(ranges, u, uint32(m.self)); err != nil {
			return IDs{}, hinted(fmt.Sprintf("as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 %s", u.Username),
				fmt.Errorf("%s: %w", m.file, err))
		}
	}
	return ids, nil
}

// userSpans maps root inside to the user and the ids from 1 on to the first range that is large enough.
func userSpans(ranges []subRange, u *user.User, self uint32) ([]span, error) {
	for _, r := range ranges {
		if (r.owner == u.Username || r.owner == u.Uid) && r.n >= agentID {
			return []span{{0, self, 1}, {1, r.start, min(r.n, rangeSize-1)}}, nil
		}
	}
	return nil, fmt.Errorf("no %d subordinate ids for user %q", agentID, u.Username)
}

// rootIDs finds a range that is nobody's.
func rootIDs(files ...string) (IDs, error) {
	var taken []subRange
	for _, f := range files {
		r, err := subordinate(f)
		if err != nil {
			return IDs{}, err
		}
		taken = append(taken, r...)
	}
	for base := uint32(firstBase); base <= lastBase; base += rangeSize {
		free := true
		for _, r := range taken {
			if uint64(base) < uint64(r.start)+uint64(r.n) && uint64(r.start) < uint64(base)+rangeSize {
				free = false
			}
		}
		if free {
			m := []span{{0, base, rangeSize}}
			return IDs{root: true, uid: m, gid: m}, nil
		}
	}
	return IDs{}, hinted("look at /etc/subuid and /etc/subgid", errors.New("every range of ids for containers is taken"))
}

// A subRange is one line of subuid(5).
type subRange struct {
	owner    string
	start, n uint32
}

// subordinate reads a file in the form of subuid(5); one that is not there is empty. Lines that are
// none are skipped, as the tools do.
func subordinate(path string) ([]subRange, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var ranges []subRange
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		parts := strings.Split(strings.TrimSpace(lines.Text()), ":")
		if len(parts) != 3 {
			continue
		}
		start, err1 := strconv.ParseUint(parts[1], 10, 32)
		n, err2 := strconv.ParseUint(parts[2], 10, 32)
		if err1 == nil && err2 == nil && n > 0 {
			ranges = append(ranges, subRange{parts[0], uint32(start), uint32(n)})
		}
	}
	return ranges, lines.Err()
}

// apply maps the ids of process pid, the first of its user namespace.
func (ids IDs) apply(ctx context.Context, pid int) error {
	for _, m := range []struct {
		tool, file string
		spans      []span
	}{{"newuidmap", "uid_map", ids.uid}, {"newgidmap", "gid_map", ids.gid}} {
		if ids.root {
			if err := os.WriteFile(fmt.Sprintf("/proc/%d/%s", pid, m.file), []byte(lines(m.spans)), 0); err != nil {
				if errors.Is(err, unix.EPERM) {
					return hinted("root needs CAP_SETUID, CAP_SETGID and CAP_SYS_ADMIN, which a container may lack", err)
				}
				return fmt.Errorf("mapping ids: %w", err)
			}
			continue
		}
		args := append([]string{strconv.Itoa(pid)}, strings.Fields(lines(m.spans))...)
		if out, err := exec.CommandContext(ctx, m.tool, args...).CombinedOutput(); err != nil {
			return hinted("is "+m.tool+" set-uid root, as the package uidmap installs it?",
				fmt.Errorf("mapping ids: %s: %w: %s", m.tool, err, strings.TrimSpace(string(out))))
		}
	}
	return nil
}

// lines returns the spans as uid_map takes them (user_namespaces(7)).
func lines(spans []span) string {
	var b strings.Builder
	for _, s := range spans {
		fmt.Fprintf(&b, "%d %d %d\n", s.inside, s.outside, s.n)
	}
	return b.String()
}
