package boot

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"torno.internal/guest/internal/front"
	"torno.internal/guest/internal/relay"
	"torno.internal/guest/internal/workload"
	"torno.internal/protocol"
	"torno.internal/protocol/transport"
)

// sayHello asks the broker for all that the guest needs to know, and opens the pool of streams.
func (g *guest) sayHello(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, protocol.HelloTimeout)
	defer cancel()
	nonce := make([]byte, protocol.NonceSize)
	rand.Read(nonce)
	hello, err := relay.Hello(ctx, g.dialBroker, protocol.HelloRequest{Nonce: nonce, Guest: g.Version})
	if err != nil {
		return err
	}
	if len(hello.Token) != protocol.TokenSize {
		return fmt.Errorf("token of %d bytes, want %d", len(hello.Token), protocol.TokenSize)
	}
	token := protocol.Token(hello.Token)
	g.pool = relay.New(g.dialBroker, token)
	g.channel = relay.NewChannel(g.dialBroker, token)
	if len(hello.RunToken) > 0 && g.Run != (transport.Addr{}) {
		if len(hello.RunToken) != protocol.TokenSize {
			return fmt.Errorf("run token of %d bytes, want %d", len(hello.RunToken), protocol.TokenSize)
		}
		g.run = &workload.Channel{Dial: g.dialRun, Token: protocol.Token(hello.RunToken)}
	}
	g.hello = hello
	return nil
}

// startFront serves what the capture catches and the explicit proxy, and follows the broker's events.
func (g *guest) startFront(ctx context.Context) error {
	proxy, err := g.listenProxy(ctx)
	if err != nil {
		return err
	}
	f := front.New(front.Config{Pool: g.pool, Leaf: g.channel, NameOf: g.table.NameOf, Log: g.Log})
	g.serve("capture", func(ctx context.Context) error { return f.Serve(ctx, g.caught) })
	g.serve("explicit proxy", func(ctx context.Context) error { return f.ServeProxy(ctx, proxy) })
	g.serve("events", g.followEvents)
	return nil
}

// eventsPause is how long the guest waits before it asks for events again.
const eventsPause = 2 * time.Second

// followEvents acts on what the broker says, for as long as the guest runs. A broker that restarts ends
// the events; the guest then asks again.
func (g *guest) followEvents(ctx context.Context) error {
	for {
		if err := g.channel.Events(ctx, func(e protocol.Event) { g.handle(e) }); err != nil && ctx.Err() == nil {
			g.Log.Debug("events ended", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(eventsPause):
		}
	}
}

func (g *guest) handle(e protocol.Event) {
	switch e.Type {
	case protocol.EventClock:
		g.correctClock(e.Time)
	case protocol.EventRevoke:
		g.pool.Close() // the broker cuts what is under way; the next exchange opens a new stream
	case protocol.EventShutdown:
		g.shutdown()
	}
}
