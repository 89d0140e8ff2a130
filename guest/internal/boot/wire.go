package boot

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"torno.internal/guest/internal/capture"
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
	boot, err := g.bootNonce()
	if err != nil {
		return err
	}
	hello, err := relay.Hello(ctx, g.dialBroker, protocol.HelloRequest{Nonce: nonce, Guest: g.Version, Boot: boot})
	if err != nil {
		return err
	}
	if err := g.use(hello); err != nil {
		return err
	}
	if g.Words.Wait {
		g.stir()
	}
	return nil
}

// bootNonceFile holds the machine's boot nonce in base64, in its initial file system.
const bootNonceFile = initDir + "/boot"

// bootNonce returns what the host gave this machine alone to tell it from others, or nil: a word of the kernel
// command line, or a file.
func (g *guest) bootNonce() ([]byte, error) {
	text := g.Words.Boot
	if text == "" {
		text = g.bootFile
	}
	if text == "" {
		return nil, nil
	}
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(b) != protocol.NonceSize {
		return nil, fmt.Errorf("the boot nonce is not %d bytes in base64", protocol.NonceSize)
	}
	return b, nil
}

// use makes hello's answer the guest's own.
func (g *guest) use(hello *protocol.HelloResponse) error {
	switch started := len(hello.Workload.Argv) > 0; {
	case started && g.attached:
		return &capture.HintError{Err: errors.New("the session is for a machine whose workload torno-guest starts"), Hint: "torno vm config --attach"}
	case !started && !g.attached:
		return &capture.HintError{Err: errors.New("the session has no command to start"), Hint: "torno-guest attach serves machines that start their own"}
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
	f := front.New(front.Config{Pool: g.pool, Leaf: g.channel, NameOf: g.table.NameOf, Log: g.Log, Tunnels: g.hello.Tunnels})
	g.serve("capture", func(ctx context.Context) error { return f.Serve(ctx, g.caught) })
	g.serve("events", g.followEvents)
	if g.attached { // other users of the machine could ask a proxy
		return nil
	}
	proxy, err := g.listenProxy(ctx)
	if err != nil {
		return err
	}
	g.serve("explicit proxy", func(ctx context.Context) error { return f.ServeProxy(ctx, proxy) })
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
