package apt

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseURIs(t *testing.T) {
	digest := strings.Repeat("0a", 32)
	got, err := parseURIs([]byte("'http://x/pool/z.deb' zlib1g_1%3a1.2.13.dfsg-1_amd64.deb 86692 SHA256:" + digest + "\n" +
		"'http://x/pool/a.deb' adduser_3.134_all.deb 10 SHA256:" + digest + "\n"))
	want := []Package{{"adduser", "3.134", "all", 10, digest}, {"zlib1g", "1:1.2.13.dfsg-1", "amd64", 86692, digest}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if want[1].File() != "zlib1g_1%3a1.2.13.dfsg-1_amd64.deb" {
		t.Errorf("file %q", want[1].File())
	}
	for _, bad := range []string{
		"garbage\n", "'u' a_1_amd64.deb 10 MD5Sum:00\n", "'u' ../a_1_amd64.deb 10 SHA256:" + digest + "\n",
		"'u' a_1%2f..%2fb_amd64.deb 10 SHA256:" + digest + "\n", "'u' a_1_amd64.deb 0 SHA256:" + digest + "\n", "'u' a_1%zz_amd64.deb 10 SHA256:" + digest + "\n", "'u' a_1_amd64.deb 99999999999999999999 SHA256:" + digest + "\n",
	} {
		if got, err := parseURIs([]byte(bad)); err == nil {
			t.Errorf("%q: %v", bad, got)
		}
	}
}

func TestParseSources(t *testing.T) {
	out := `http://mirror.example/debian/|bookworm|main|Debian
http://mirror.example/debian/|bookworm|main|Debian
http://mirror.example/security/|bookworm-security|main|Debian
http://mirror.example/debian/|trixie|main|Debian
https://other.example/|bookworm|main|Somebody
nonsense
`
	got := parseSources(out, "bookworm")
	if len(got) != 2 || !strings.HasSuffix(got[0], "http://mirror.example/debian/ bookworm main") || !strings.HasSuffix(got[1], "http://mirror.example/security/ bookworm-security main") {
		t.Errorf("%q", got)
	}
}

func TestFailure(t *testing.T) {
	said := "E: Version '1-2' for 'bash' was not found\nE: Unable to locate package nothing\n"
	err := failure(context.Background(), "x", bytes.NewBufferString(said))
	if !errors.Is(err, ErrGone) || !strings.Contains(err.Error(), "bash 1-2, nothing") {
		t.Error(err)
	}
	if err := failure(context.Background(), "x", bytes.NewBufferString("E: no space\n")); errors.Is(err, ErrGone) || !strings.Contains(err.Error(), "no space") {
		t.Error(err)
	}
}

func TestStatus(t *testing.T) {
	var got []int64
	status(strings.NewReader("dlstatus:1:0.0:x\nnoise\ndlstatus:2:50.5:y\ndlstatus:2:900:y\ndlstatus:3:100.0000:z\n"), 1000, func(n int64) { got = append(got, n) })
	if diff := cmp.Diff([]int64{0, 505, 1000}, got); diff != "" {
		t.Error(diff)
	}
}

// Debian's own packages: resolved, got, checked; not got again; and got again where they are damaged.
func TestDownload(t *testing.T) {
	if _, err := os.Stat("/etc/debian_version"); err != nil {
		t.Skip("Debian's packages are to be had on Debian alone")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	a := Apt{Dir: t.TempDir()}
	all, err := a.Resolve(ctx, "tzdata")
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(p Package) bool { return p.Name == "tzdata" })
	if i < 0 {
		t.Fatalf("no tzdata in %v", all)
	}
	p := all[i]
	var reports int
	get := func() error {
		reports = 0
		return a.Download(ctx, []Package{p}, func(_ string, done, total int64) {
			if reports++; total != p.Size || done > total {
				t.Errorf("%d of %d", done, total)
			}
		})
	}
	if err := get(); err != nil || reports == 0 {
		t.Fatalf("%d reports, %v", reports, err)
	}
	if err := get(); err != nil || reports != 0 {
		t.Errorf("a second time: %d reports, %v", reports, err)
	}
	if again, err := a.Resolve(ctx, "tzdata"); err != nil || cmp.Diff(all, again) != "" {
		t.Errorf("with a package got: %v, %s", err, cmp.Diff(all, again))
	}
	if err := os.WriteFile(filepath.Join(a.Dir, p.File()), []byte("damaged"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := get(); err != nil {
		t.Errorf("after damage: %v", err)
	}
	gone := p
	gone.Version = "0.1-1"
	if err := a.Download(ctx, []Package{gone}, func(string, int64, int64) {}); !errors.Is(err, ErrGone) || !strings.Contains(err.Error(), "tzdata 0.1-1") {
		t.Errorf("a version that has left: %v", err)
	}
	other := p
	other.SHA256 = strings.Repeat("0", 64)
	if err := a.Download(ctx, []Package{other}, func(string, int64, int64) {}); !errors.Is(err, ErrDigest) {
		t.Errorf("another digest: %v", err)
	}
}

func FuzzParseURIs(f *testing.F) {
	f.Add([]byte("'u' a_1%3a2_amd64.deb 10 SHA256:" + strings.Repeat("0a", 32) + "\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		packages, err := parseURIs(b)
		if err != nil && packages != nil {
			t.Error("packages beside an error")
		}
		for _, p := range packages {
			if strings.Contains(p.File(), "/") || p.Size <= 0 || len(p.SHA256) != 64 {
				t.Errorf("%+v", p)
			}
		}
	})
}
