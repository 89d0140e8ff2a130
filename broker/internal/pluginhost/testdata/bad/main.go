// Bad is a plugin that misbehaves in the way that the variable FAULT names. Without one it is a good source and a good
// signer.
package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"torno.internal/broker/internal/pluginpb"
	"torno.internal/broker/plugin"
)

// canary is the secret that must not be anywhere.
const canary = "canary-8sJ2nd83kdPqLz0"

type bad struct {
	fault string
	calls atomic.Int64
	token string
}

func main() {
	b := &bad{fault: os.Getenv("FAULT")}
	switch b.fault {
	case "exit at start":
		fmt.Fprintln(os.Stderr, canary)
		os.Exit(7)
	case "silent":
		time.Sleep(time.Hour)
	case "not a plugin":
		fmt.Println("hello " + canary)
		time.Sleep(time.Hour)
	case "endless line":
		for {
			os.Stdout.WriteString(strings.Repeat("x", 4096))
		}
	case "flood at start":
		for {
			os.Stderr.WriteString(canary + strings.Repeat("x", 4096) + "\n")
		}
	case "other socket":
		fmt.Println("1|1|unix|/run/other.sock|grpc|" + strings.Repeat("A", 100))
		time.Sleep(time.Hour)
	case "other network":
		fmt.Println("1|1|tcp|127.0.0.1:80|grpc|" + strings.Repeat("A", 100))
		time.Sleep(time.Hour)
	case "no certificate":
		fmt.Println("1|1|unix|" + os.Getenv("PLUGIN_UNIX_SOCKET_DIR") + "/s|grpc|")
		time.Sleep(time.Hour)
	case "wrong certificate":
		os.Setenv("PLUGIN_CLIENT_CERT", "") // serves without TLS
	case "version 2":
		serve(b, 2, true)
		return
	case "net/rpc":
		serve(b, 1, false)
		return
	case "stop":
		goplugin.Serve(&goplugin.ServeConfig{
			HandshakeConfig:  plugin.Handshake,
			VersionedPlugins: map[int]goplugin.PluginSet{1: {plugin.Name: &raw{impl: b, both: true}}},
			GRPCServer: func(opts []grpc.ServerOption) *grpc.Server {
				return grpc.NewServer(append(opts, grpc.UnaryInterceptor(b.stop))...)
			},
		})
		return
	}
	if b.fault == "signer" {
		plugin.Serve(onlySigner{b})
		return
	}
	plugin.Serve(b)
}

// serve serves by another version of the protocol, or by net/rpc.
func serve(b *bad, version int, overGRPC bool) {
	c := &goplugin.ServeConfig{
		HandshakeConfig:  plugin.Handshake,
		VersionedPlugins: map[int]goplugin.PluginSet{version: {plugin.Name: &raw{impl: b}}},
	}
	if overGRPC {
		c.GRPCServer = goplugin.DefaultGRPCServer
	}
	goplugin.Serve(c)
}

// raw registers without the limits of package plugin.
type raw struct {
	goplugin.NetRPCUnsupportedPlugin
	impl *bad
	both bool
}

// stop answers nothing any more once a secret was asked for.
func (b *bad) stop(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if strings.HasSuffix(info.FullMethod, "/Fetch") || b.calls.Load() > 0 {
		b.calls.Add(1)
		time.Sleep(time.Hour)
	}
	return next(ctx, req)
}

func (r *raw) GRPCServer(_ *goplugin.GRPCBroker, s *grpc.Server) error {
	if r.both {
		return plugin.Register(s, r.impl)
	}
	pluginpb.RegisterSourceServer(s, pluginpb.UnimplementedSourceServer{})
	return plugin.Register(s, onlySigner{r.impl})
}

func (r *raw) GRPCClient(context.Context, *goplugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, errors.New("none")
}

type onlySigner struct{ plugin.Signer }

func (b *bad) Configure(_ context.Context, c plugin.Config) error {
	if b.fault == "configuration" {
		return fmt.Errorf("%w: %s is no configuration", plugin.ErrInvalid, canary)
	}
	b.token = string(c.Files["token"])
	return nil
}

func (b *bad) Fetch(ctx context.Context, ref string) (plugin.Secret, error) {
	n := b.calls.Add(1)
	good := plugin.Secret{Value: []byte(canary), Version: "1"}
	switch b.fault {
	case "crash":
		os.Exit(3)
	case "crash once":
		if n == 1 && ref == "crash" {
			os.Exit(3)
		}
	case "panic":
		go panic(canary)
		time.Sleep(time.Minute)
	case "hang":
		if ref == "hang" {
			select {}
		}
	case "flood stderr":
		for {
			_, _ = syscall.Write(2, []byte(canary+strings.Repeat("x", 4096)+"\n"))
		}
	case "flood stdout":
		for {
			_, _ = syscall.Write(1, []byte(canary+strings.Repeat("x", 4096)+"\n"))
		}
	case "stderr":
		fmt.Fprintln(os.Stderr, "the secret is "+canary+", the token "+b.token)
		_, _ = syscall.Write(2, []byte("raw "+canary+"\n"))
	case "stderr and error":
		_, _ = syscall.Write(2, []byte("raw "+canary+"\n"))
		return plugin.Secret{}, errors.New("no " + canary)
	case "stderr and crash":
		_, _ = syscall.Write(2, []byte("raw "+canary+"\n"))
		os.Exit(3)
	case "huge":
		good.Value = bytes.Repeat([]byte("x"), 2<<20)
	case "too long":
		good.Value = bytes.Repeat([]byte("x"), plugin.MaxValue+1)
	case "empty":
		good.Value = nil
	case "expired":
		good.Expires = time.Now().Add(-time.Minute)
	case "version of control characters":
		good.Version = "1\x1b[2J"
	case "memory":
		for all := [][]byte{}; ; {
			all = append(all, bytes.Repeat([]byte("x"), 1<<20))
		}
	case "looks around":
		good.Value = []byte(lookAround())
	case "version that is the secret":
		good.Version = "v " + canary
	case "version that is its half":
		good.Version = canary[:len(canary)-4]
	case "files":
		for i := range 64 {
			_ = os.WriteFile(fmt.Sprintf("%s/%d", os.Getenv("PLUGIN_UNIX_SOCKET_DIR"), i), nil, 0o600)
		}
	case "not found":
		return plugin.Secret{}, plugin.ErrNotFound
	case "denied":
		return plugin.Secret{}, plugin.ErrDenied
	case "unavailable":
		return plugin.Secret{}, plugin.ErrUnavailable
	}
	return good, nil
}

// lookAround returns what of the host it sees that no plugin should.
func lookAround() string {
	seen := []string{"nothing"}
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, "PLUGIN_") && name != "TORNO_PLUGIN" && name != "FAULT" {
			seen = append(seen, "variable "+name)
		}
	}
	for _, path := range []string{"/dev/tty", "/proc/1/environ", "/proc/self/environ", "/etc/passwd", "/etc/hosts", os.Getenv("HOME")} {
		if f, err := os.Open(path); err == nil {
			f.Close()
			seen = append(seen, path)
		}
	}
	if info, err := os.Stdin.Stat(); err == nil && info.Mode()&os.ModeDevice == 0 {
		seen = append(seen, "standard input")
	}
	for fd := 3; fd < 64; fd++ {
		var st syscall.Stat_t
		if syscall.Fstat(fd, &st) == nil && st.Mode&syscall.S_IFMT == syscall.S_IFREG {
			seen = append(seen, fmt.Sprint("descriptor ", fd))
		}
	}
	return strings.Join(seen, ", ")
}

func (b *bad) Watch(ctx context.Context, _ string, changed func()) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
			changed()
		}
	}
}

func (b *bad) Sign(_ context.Context, r plugin.SignRequest) ([]byte, error) {
	if b.fault == "short signature" {
		return []byte("short"), nil
	}
	if r.Algorithm != plugin.HMAC {
		return nil, plugin.ErrInvalid
	}
	m := hmac.New(sha256.New, []byte(canary))
	m.Write(r.Message)
	return m.Sum(nil), nil
}
