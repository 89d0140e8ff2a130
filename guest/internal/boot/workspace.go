package boot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"torno.internal/guest/internal/rootfs"
	"torno.internal/guest/internal/workload"
	"torno.internal/guest/internal/workspace"
	"torno.internal/protocol"
)

// workspaceName is the workspace's directory on the scratch disk, beside what is written over the image:
// who has the disk needs nothing else to find it.
const workspaceName = "workspace"

// makeWorkspace makes the directory that the workspace is copied into, at the path that it has on the
// host: on the scratch disk where there is one, else in memory.
func (g *guest) makeWorkspace(context.Context) error {
	dir := g.hello.Workload.Workspace
	if dir == "" {
		return nil
	}
	if !filepath.IsAbs(dir) || filepath.Clean(dir) != dir || dir == "/" {
		return fmt.Errorf("%q is not an absolute path", dir)
	}
	if g.run == nil {
		return errors.New("a workspace needs a run channel")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	notes, err := g.mountWorkspace(dir)
	if err != nil {
		return err
	}
	owner := workload.OwnerOf(g.hello.Workload.User)
	if err := os.Chown(dir, owner, owner); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	g.workspace = &workspace.Workspace{Dir: root, Notes: notes, Owner: owner}
	return nil
}

// mountWorkspace gives the directory its file system, and returns where its notes go.
func (g *guest) mountWorkspace(dir string) (notes *os.Root, err error) {
	const flags = unix.MS_NOSUID | unix.MS_NODEV
	if g.upper == nil {
		if !g.initial { // the root is not ours to write to
			if err := unix.Mount("tmpfs", dir, "tmpfs", flags, "mode=0755"); err != nil {
				return nil, err
			}
		}
		return os.OpenRoot(rootfs.Dir)
	}
	if err := g.upper.Mkdir(workspaceName, 0o755); err != nil {
		return nil, err
	}
	f, err := g.upper.Open(workspaceName)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// The disk is mounted where no path leads any more.
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), dir, "", unix.MS_BIND, ""); err != nil {
		return nil, fmt.Errorf("mounting over %q: %w", dir, err)
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|flags|unix.MS_NOATIME, ""); err != nil {
		return nil, err
	}
	g.serve("workspace", g.keepWorkspace)
	return g.upper, nil
}

// keepInterval bounds how old what a machine that dies leaves on its disk can be.
const keepInterval = 5 * time.Second

// keepWorkspace has the kernel write to disk what is in memory alone, again and again.
func (g *guest) keepWorkspace(ctx context.Context) error {
	f, err := g.upper.Open(".")
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(keepInterval):
		}
		if err := unix.Syncfs(int(f.Fd())); err != nil {
			g.Log.Warn("writing to the scratch disk", "error", err)
		}
	}
}

// recoverToken is the file of the initial file system that holds the run token, where the machine's only
// job is to send back a workspace.
const recoverToken = "recover"

// recover sends back the workspace that another machine left on the scratch disk. Nothing of what is there
// is executed: it is this kernel, and no other, that has to read a file system that a workload wrote.
func (g *guest) recover(ctx context.Context) protocol.Exit {
	exit := protocol.Exit{}
	if err := g.sendLeft(ctx); err != nil {
		g.Log.Error("recover", "error", err)
		exit = protocol.Exit{Code: protocol.ExitFailed, Error: "recover: " + err.Error()}
	}
	if g.run != nil {
		if err := g.run.SendExit(ctx, exit); err != nil {
			g.Log.Error("telling the host", "error", err)
		}
	}
	return exit
}

func (g *guest) sendLeft(ctx context.Context) error {
	if err := g.loadModules(ctx); err != nil {
		return err
	}
	token, err := os.ReadFile(filepath.Join(initDir, recoverToken))
	if err != nil {
		return err
	}
	if len(token) != protocol.TokenSize {
		return fmt.Errorf("run token of %d bytes, want %d", len(token), protocol.TokenSize)
	}
	g.run = &workload.Channel{Dial: g.dialRun, Token: protocol.Token(token)}
	if err := g.mountDisk(ctx, diskScratch, scratchDir, safe|unix.MS_NOATIME); err != nil {
		return err
	}
	scratch, err := os.OpenRoot(scratchDir)
	if err != nil {
		return err
	}
	defer scratch.Close()
	dir, err := scratch.OpenRoot(workspaceName)
	if err != nil {
		return err
	}
	defer dir.Close()
	return g.run.SendWorkspace(ctx, &workspace.Workspace{Dir: dir, Notes: scratch})
}
