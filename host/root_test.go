package main_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A workload that is root inside has nearly every capability there. It still cannot write what is shown
// read-only, look below its own mounts, see the host's processes or touch the host's kernel.
func TestAttack46RootWorkload(t *testing.T) {
	h := newAgentHouse(t)
	h.write("torno.toml", agentFile+"\n[workload]\nuser = \"root\"\n")
	h.write("kept", "as it was")
	if err := os.Chmod(filepath.Join(h.work, "kept"), 0o666); err != nil {
		t.Fatal(err)
	}
	core, err := os.ReadFile("/proc/sys/kernel/core_pattern")
	if err != nil {
		t.Fatal(err)
	}
	r := h.sh(`id -u
mount -t tmpfs none /mnt && echo "control: mounts"
for m in . /usr /run/torno; do
  mount -o remount,rw,bind $m 2>/dev/null && echo "leak: remounts $m"
  umount -l $m 2>/dev/null && echo "leak: unmounts $m"
done
echo changed 2>/dev/null >kept && echo "leak: writes"
echo x 2>/dev/null >/proc/sys/kernel/core_pattern && echo "leak: core_pattern"
date -s '2001-01-01' >/dev/null 2>&1 && echo "leak: clock"
mknod /tmp/mem c 1 1 2>/dev/null && echo "leak: mknod"
for f in mem environ root/ cwd/ fd/0; do cat /proc/1/$f >/dev/null 2>&1 && echo "leak: guest $f"; ls /proc/1/$f >/dev/null 2>&1 && echo "leak: guest $f"; done
umount -l /proc 2>/dev/null
n=$(ls /proc 2>/dev/null | grep -c '^[0-9]')
[ "$n" -gt 9 ] && echo "leak: $n processes below /proc" # torno's own stages, this shell and its children
s=0
for p in $(ls /proc | grep '^[0-9]'); do
  [ "$(head -c 5 /proc/$p/cmdline | tr -d '\\000')" = torno ] && s=$((s+1))
  for f in environ root/etc/passwd maps mem; do [ "$(head -c 5 /proc/$p/cmdline | tr -d '\\000')" = torno ] && head -c1 /proc/$p/$f >/dev/null 2>&1 && echo "leak: $p $f"; done
done
echo "control: $s of torno"`)
	if strings.Contains(r.stdout, "leak") || r.stdout != "0\ncontrol: mounts\ncontrol: 2 of torno\n" {
		t.Errorf("stdout %q, stderr %q", r.stdout, r.stderr)
	}
	if got, err := os.ReadFile(filepath.Join(h.work, "kept")); err != nil || string(got) != "as it was" {
		t.Errorf("the file holds %q, %v", got, err)
	}
	if got, err := os.ReadFile("/proc/sys/kernel/core_pattern"); err != nil || string(got) != string(core) {
		t.Errorf("core_pattern is %q, %v", got, err)
	}
}
