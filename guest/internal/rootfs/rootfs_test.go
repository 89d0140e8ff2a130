package rootfs

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"torno.internal/guest/internal/nstest"
)

func check(t *testing.T, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	info, statErr := os.Stat(path)
	if string(got) != want || err != nil || statErr != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("%s: %q, %v, %v, want %q with mode 0644", path, got, err, statErr, want)
	}
}

func TestWriteFile(t *testing.T) {
	nstest.Run(t, func(t *testing.T) {
		if err := MakeDir(); err != nil {
			t.Fatal(err)
		}
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		const dir = "/run/image" // not t.TempDir, which could not remove it
		must(os.Mkdir(dir, 0o755))
		must(unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=0755"))
		must(os.WriteFile(dir+"/there", []byte("old"), 0o600))
		must(os.Symlink("there", dir+"/link"))
		must(os.Symlink("/run/nowhere/resolv.conf", dir+"/dangling"))

		must(WriteFile(dir+"/new", []byte("1")))
		must(WriteFile(dir+"/link", []byte("2")))
		check(t, dir+"/new", "1")
		check(t, dir+"/there", "2")
		if target, err := os.Readlink(dir + "/link"); target != "there" {
			t.Errorf("the link became %q, %v", target, err)
		}

		must(unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
		must(WriteFile(dir+"/there", []byte("3")))
		must(WriteFile(dir+"/there", []byte("4"))) // now mounted over, still replaced
		must(WriteFile(dir+"/dangling", []byte("5")))
		check(t, dir+"/there", "4")
		check(t, dir+"/dangling", "5")
		if err := WriteFile(dir+"/absent", []byte("6")); !Unwritable(err) {
			t.Errorf("absent file on a read-only system: %v", err)
		}
	})
}
