package relay

import (
	"context"
	"errors"
	"time"

	"torno.internal/protocol"
)

// Await returns once a session waits for this guest's hello. Until then nobody answers, or there is no
// session here, and each time it asks anew: a machine that is restored from a snapshot taken meanwhile
// finds the session that was made for it. The error is the context's, or what the broker says otherwise.
func Await(ctx context.Context, dial Dialer) error {
	for {
		err := Try(ctx, dial, protocol.Preface{Version: protocol.Version, Kind: protocol.KindHello})
		var status *protocol.StatusError
		switch {
		case err == nil, ctx.Err() != nil:
			return errors.Join(err, ctx.Err())
		case errors.As(err, &status) && status.Status != protocol.StatusNoSession && status.Status != protocol.StatusBusy:
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(helloPause):
		}
	}
}

// Try opens a stream and closes it again. An error that is a *protocol.StatusError is the broker's answer.
func Try(ctx context.Context, dial Dialer, p protocol.Preface) error {
	c, err := dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	_ = c.SetDeadline(time.Now().Add(protocol.PrefaceTimeout))
	if _, err := c.Write(p.AppendTo(nil)); err != nil {
		return err
	}
	return protocol.ReadPrefaceReply(c)
}
