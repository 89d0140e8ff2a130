package namespace

import (
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// subordinateUser returns a user that has subordinate ids on this machine.
func subordinateUser() (uid, gid uint32, ok bool) {
	uids, err := subordinate("/etc/subuid")
	if err != nil {
		return 0, 0, false
	}
	for _, r := range uids {
		u, err := user.Lookup(r.owner)
		if err != nil {
			continue
		}
		id, err1 := strconv.ParseUint(u.Uid, 10, 32)
		group, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err1 == nil && err2 == nil && id != 0 {
			return uint32(id), uint32(group), true
		}
	}
	return 0, 0, false
}

func TestRootIDs(t *testing.T) {
	file := filepath.Join(t.TempDir(), "subuid")
	write := func(s string) {
		if err := os.WriteFile(file, []byte(s), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		file string
		want uint32
	}{
		{"", firstBase},
		{"ada:100000:65536\nnonsense\nbob:x:1\n", firstBase},
		{"ada:" + strconv.Itoa(firstBase+5) + ":1\n", firstBase + rangeSize},
		{"ada:" + strconv.Itoa(firstBase-5) + ":6\n", firstBase + rangeSize},
		{"ada:" + strconv.Itoa(firstBase-5) + ":5\n", firstBase},
	} {
		write(c.file)
		ids, err := rootIDs(file, filepath.Join(t.TempDir(), "absent"))
		if err != nil || ids.Peer() != c.want || ids.Agent() != c.want+agentID {
			t.Errorf("%q: base %d, %v; want %d", c.file, ids.Peer(), err, c.want)
		}
	}
	write("ada:1:4294967295\n")
	if ids, err := rootIDs(file); err == nil {
		t.Errorf("everything is taken, but the base is %d", ids.Peer())
	}
}

func TestUserSpans(t *testing.T) {
	ada := &user.User{Username: "ada", Uid: "1001"}
	ranges := []subRange{{"bob", 100000, 65536}, {"ada", 5000, 10}, {"1001", 200000, 65536}}
	got, err := userSpans(ranges, ada, 1001)
	want := []span{{0, 1001, 1}, {1, 200000, 65535}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(span{})); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if _, err := userSpans(ranges[:2], ada, 1001); err == nil {
		t.Error("ten ids are enough")
	}
}
