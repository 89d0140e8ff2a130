// Package usersocket serves Unix sockets to which one user of the machine may connect, and nobody else but root.
package usersocket

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"sync"
)

// Listen listens at path, where user uid alone may connect.
func Listen(path string, uid int) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) { // of an earlier process
		return nil, err
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	if err := errors.Join(os.Chmod(path, 0o600), os.Lchown(path, uid, uid)); err != nil {
		return nil, errors.Join(fmt.Errorf("giving %q to its user: %w", path, err), ln.Close())
	}
	return ln, nil
}

// Serve has carry carry each client, at most so many at once; further ones wait. It returns once ctx has ended, or the
// listener has failed, and all clients with it.
func Serve(ctx context.Context, ln net.Listener, most int, log *slog.Logger, carry func(context.Context, net.Conn) error) error {
	ctx, cancel := context.WithCancel(ctx)
	var clients sync.WaitGroup
	defer clients.Wait()
	defer cancel()
	defer context.AfterFunc(ctx, func() { ln.Close() })()
	places := make(chan struct{}, most)
	for {
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		client, err := ln.Accept()
		if ctx.Err() != nil {
			if err == nil {
				client.Close()
			}
			return nil
		}
		if err != nil {
			return err
		}
		clients.Go(func() {
			defer func() { <-places }()
			if err := carry(ctx, client); err != nil && ctx.Err() == nil {
				log.Debug("a client of a socket ended", "socket", ln.Addr(), "error", err)
			}
		})
	}
}
