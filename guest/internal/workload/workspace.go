package workload

import (
	"bufio"
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"torno.internal/guest/internal/workspace"
	"torno.internal/protocol"
)

const archiveBuffer = 64 << 10 // bytes

// runInWorkspace fills the workspace, runs the workload and sends back what it changed, however it ended.
func (c Config) runInWorkspace(ctx context.Context) protocol.Exit {
	if c.Workspace == nil {
		return c.runAttached(ctx)
	}
	if err := c.Channel.FillWorkspace(ctx, c.Workspace); err != nil {
		hint := ""
		if errors.Is(err, unix.ENOSPC) {
			hint = "the sandbox has too little room for it; torno run --disk gives a VM more"
		}
		return failure(err, hint)
	}
	exit := c.runAttached(ctx)
	if err := c.Channel.SendWorkspace(ctx, c.Workspace); err != nil {
		c.Log.Error("sending the workspace back", "error", err) // the host knows that it did not get it
	}
	return exit
}

// FillWorkspace has the host send the workspace.
func (c *Channel) FillWorkspace(ctx context.Context, w *workspace.Workspace) error {
	s, err := c.get(ctx, protocol.PathWorkspaceIn)
	if err != nil {
		return err
	}
	defer s.Close()
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	if err := w.Fill(bufio.NewReaderSize(s, archiveBuffer)); err != nil {
		return fmt.Errorf("workspace: %w", err)
	}
	return nil
}

// SendWorkspace sends the host what has changed of the workspace, and waits until it has taken that. It
// does so even when ctx is done: that is when the workload has ended.
func (c *Channel) SendWorkspace(ctx context.Context, w *workspace.Workspace) error {
	s, err := c.post(context.WithoutCancel(ctx), protocol.PathWorkspaceOut)
	if err != nil {
		return err
	}
	defer s.Close()
	buffered := bufio.NewWriterSize(s, archiveBuffer)
	err = w.Changes(buffered)
	if err == nil {
		err = buffered.Flush()
	}
	if err == nil {
		err = s.finish()
	}
	if err != nil {
		return fmt.Errorf("workspace: %w", err)
	}
	return nil
}
