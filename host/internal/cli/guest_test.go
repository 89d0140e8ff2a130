package cli

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestHarmless(t *testing.T) {
	var b strings.Builder
	const said = "one\r\ntwo \x1b]0;title\x07\n\xff\u202e"
	if n, err := (harmless{&b}).Write([]byte(said)); n != len(said) || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if want := "one\ntwo \\x1b]0;title\\a\n\\xff\\u202e"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
}

func TestPrintConsole(t *testing.T) {
	var b strings.Builder
	if err := printConsole(&b, strings.Repeat("line\r\n", 30)+"\x1b]0;title\x07 last\n"); err != nil {
		t.Fatal(err)
	}
	if want := "console\n" + strings.Repeat("  line\n", shownLines-1) + `  \x1b]0;title\a last` + "\n"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
	b.Reset()
	if err := printConsole(&b, " \n"); err != nil || b.String() != "" {
		t.Errorf("a silent console: %q, %v", b.String(), err)
	}
}

// Only what is certainly dead is swept: old, and refusing.
func TestSweepRuns(t *testing.T) {
	dir := places(t)
	leave := func(name string, age time.Duration, listen, keep bool) net.Listener {
		t.Helper()
		d := filepath.Join(dir, name)
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
		ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(d, runSocket)})
		if err != nil {
			t.Fatal(err)
		}
		ln.SetUnlinkOnClose(false)
		if !listen {
			ln.Close()
		}
		if !keep {
			if err := os.Remove(filepath.Join(d, runSocket)); err != nil {
				t.Fatal(err)
			}
		}
		when := time.Now().Add(-age)
		if err := os.Chtimes(d, when, when); err != nil {
			t.Fatal(err)
		}
		return ln
	}
	defer leave("r0000001", time.Hour, true, true).Close() // alive
	leave("r0000002", time.Hour, false, true)              // dead
	leave("r0000003", time.Second, false, true)            // about to listen, perhaps
	leave("r0000004", time.Hour, false, false)             // not ours to judge
	leave("zh24qya7", time.Hour, false, true)              // a session's
	sweepRuns(dir)
	for name, want := range map[string]bool{"r0000001": true, "r0000002": false, "r0000003": true, "r0000004": true, "zh24qya7": true} {
		if _, err := os.Lstat(filepath.Join(dir, name)); (err == nil) != want {
			t.Errorf("%s is there: %v, want %v", name, err == nil, want)
		}
	}
}
