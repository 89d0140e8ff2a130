package pluginhost

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	goplugrunner "github.com/hashicorp/go-plugin/runner"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"torno.internal/broker/internal/confine"
	"torno.internal/broker/internal/redact"
	"torno.internal/broker/plugin"
	"torno.internal/protocol/secret"
)

// Limits on starting a plugin.
const (
	startTimeout    = 15 * time.Second // until it has said where it listens
	connectTimeout  = 5 * time.Second
	describeTimeout = 5 * time.Second
	maxAnswer       = plugin.MaxValue + 4<<10 // bytes of one message
	maxFields       = 16 << 10                // bytes of a gRPC answer's fields
)

// An instance is a plugin's process that has shaken hands. Stop it when done.
type instance struct {
	*plugin.Client
	name    string
	runner  *runner
	client  *goplugin.Client
	watches bool
	started time.Time

	stopping sync.Once
	stopped  chan struct{} // closed once nothing of it is left
}

// launch starts the plugin and returns once it is configured. output gets what it writes on standard error, note is told
// of each step that was done. Errors are *Error.
func (s *supervisor) launch(ctx context.Context, output *tail, note func(step, detail string)) (in *instance, err error) {
	program, err := s.openProgram()
	if err != nil {
		return nil, err
	}
	defer program.Close()
	note("program", s.config.SHA256)
	config, err := s.readConfig()
	if err != nil {
		return nil, err
	}
	defer wipeFiles(config.Files)
	s.starts.Add(1)
	group, err := confine.NewCGroup("torno-plugin-"+s.name, s.memory())
	if err != nil {
		return nil, s.fail(CodeNotStarted, err.Error(), "")
	}
	r := newRunner(s.name, s.spec(program, group), output)
	in = &instance{name: s.name, runner: r, started: time.Now(), stopped: make(chan struct{})}
	in.client = goplugin.NewClient(in.clientConfig(s.dir))
	stop := context.AfterFunc(ctx, func() { _ = r.Kill(context.Background()) })
	defer stop()
	if _, err := in.client.Start(); err != nil {
		if r.process == nil {
			group.End()
		}
		defer in.kill()
		return nil, s.startError(ctx, r, err)
	}
	h, _ := r.greeted()
	note("handshake", fmt.Sprintf("protocol version %d, process %d, user %d", h.version, r.process.PID(), r.process.UID))
	if err := s.connect(ctx, in, config, note); err != nil {
		defer in.kill()
		return nil, in.explain(s, err)
	}
	return in, nil
}

// connect connects to a plugin that listens, and configures it.
func (s *supervisor) connect(ctx context.Context, in *instance, config plugin.Config, note func(step, detail string)) error {
	protocol, err := in.client.Client()
	if err != nil {
		return s.fail(CodeNotAPlugin, "no connection", "")
	}
	dispensed, err := protocol.Dispense(plugin.Name)
	if err != nil {
		return s.fail(CodeNotAPlugin, "no connection", "")
	}
	in.Client = dispensed.(*plugin.Client)
	ctx, cancel := context.WithTimeout(ctx, describeTimeout+s.timeout())
	defer cancel()
	d, err := in.Describe(ctx)
	if err != nil {
		return err
	}
	if is := map[string]bool{"source": d.Source, "signer": d.Signer}; !is[s.config.Kind] {
		return s.fail(CodeKind, fmt.Sprintf("source %v, signer %v", d.Source, d.Signer), "correct kind in broker.toml")
	}
	in.watches = d.Watches
	note("description", fmt.Sprintf("source %v, signer %v, watches %v", d.Source, d.Signer, d.Watches))
	if err := in.Configure(ctx, config); err != nil {
		if in.alive() && !errors.Is(err, context.DeadlineExceeded) {
			return s.fail(CodeConfig, codeTexts[codeOf(err)], "look at config and files in broker.toml; torno plugin check "+s.name+" shows what it says")
		}
		return err
	}
	note("configuration", "")
	return nil
}

// clientConfig is how go-plugin is used: gRPC alone, mutual TLS with keys made for this process, nothing of our
// environment, our own runner in place of its, nothing logged, and no services but ours and the one that carries
// standard output and error.
func (in *instance) clientConfig(dir string) *goplugin.ClientConfig {
	r := in.runner
	flow := newMeter(answerRate, answerBurst, r.flood)
	return &goplugin.ClientConfig{
		HandshakeConfig:  plugin.Handshake,
		VersionedPlugins: plugin.Clients(),
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		AutoMTLS:         true,
		SkipHostEnv:      true,
		StartTimeout:     startTimeout,
		UnixSocketConfig: &goplugin.UnixSocketConfig{TempDir: dir},
		Logger:           hclog.NewNullLogger(), // it would log what plugins write
		SyncStdout:       r.output,
		SyncStderr:       r.output,
		RunnerFunc: func(_ hclog.Logger, cmd *exec.Cmd, dir string) (goplugrunner.Runner, error) {
			r.adopt(cmd.Env, dir)
			return r, nil
		},
		GRPCDialOptions: []grpc.DialOption{
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
				r.mu.Lock()
				path := r.socket
				r.mu.Unlock()
				c, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
				if err != nil {
					return nil, err
				}
				return meteredConn{c, flow}, nil
			}),
			grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: connectTimeout}),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)),
			grpc.WithMaxHeaderListSize(maxFields),
			grpc.WithDisableServiceConfig(),
			grpc.WithDisableRetry(),
			grpc.WithUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, next grpc.UnaryInvoker, opts ...grpc.CallOption) error {
				if !wanted(method) {
					return status.Error(codes.Unimplemented, "")
				}
				return next(ctx, method, req, reply, cc, opts...)
			}),
			grpc.WithStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, next grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
				if !wanted(method) {
					return nil, status.Error(codes.Unimplemented, "")
				}
				return next(ctx, desc, cc, method, opts...)
			}),
		},
	}
}

// wanted reports whether a plugin is asked for that: go-plugin's broker, by which a plugin could have us listen and
// dial, is not.
func wanted(method string) bool {
	return strings.HasPrefix(method, "/torno.plugin.v1.") || method == "/plugin.GRPCStdio/StreamStdio"
}

// Fetch is the plugin's Fetch. What a version is called is recorded and shown, so that it may hold no part of the secret.
func (in *instance) Fetch(ctx context.Context, ref string) (plugin.Secret, error) {
	sec, err := in.Client.Fetch(ctx, ref)
	if err != nil || sec.Version == "" {
		return sec, err
	}
	value := secret.New(slices.Clone(sec.Value))
	defer value.Wipe()
	matcher := redact.NewMatcher([]redact.Secret{{Value: value}})
	defer matcher.Wipe()
	if _, runs := matcher.Text(sec.Version); runs > 0 {
		secret.Wipe(sec.Value)
		return plugin.Secret{}, errors.New("the answer to Fetch: the version holds a part of the value")
	}
	return sec, nil
}

// startError says why a plugin did not shake hands. What go-plugin says quotes the plugin, and is dropped.
func (s *supervisor) startError(ctx context.Context, r *runner, err error) error {
	var confined *confine.Error
	h, greetErr := r.greeted()
	switch {
	case r.process == nil && errors.As(err, &confined):
		return s.fail(CodeNotStarted, confined.Error(), confined.Hint)
	case r.process == nil:
		return s.fail(CodeNotStarted, err.Error(), "")
	case isClosed(r.flooded):
		return s.fail(CodeFlooded, "", "")
	case errors.Is(greetErr, errVersion):
		return s.fail(CodeVersion, fmt.Sprintf("version %d, torno's is %d", h.version, plugin.ProtocolVersion), "use a release of the plugin that was built for this one of torno")
	case greetErr != nil:
		return s.fail(CodeNotAPlugin, "", "torno plugin check "+s.name+" shows what it says")
	case ctx.Err() != nil:
		return s.fail(CodeTimeout, "at its start", "")
	case r.process.Ended(time.Second):
		return s.fail(CodeCrashed, "at its start, "+r.process.Status(), "torno plugin check "+s.name+" shows what it says")
	}
	return s.fail(CodeTimeout, "it does not say where it listens", "")
}

// explain returns a call's error as an *Error, by what has become of the process.
func (in *instance) explain(s *supervisor, err error) *Error {
	var own *Error
	if errors.As(err, &own) {
		return own
	}
	var call *plugin.CallError
	broken := errors.As(err, &call) && (call.Code == codes.Unavailable || call.Code == codes.Internal || call.Code == codes.Canceled)
	if broken { // its end is told a little later than that of its connection
		in.runner.process.Ended(time.Second)
	}
	switch {
	case isClosed(in.runner.flooded):
		return s.fail(CodeFlooded, "", "")
	case !in.alive():
		return s.fail(CodeCrashed, in.runner.process.Status(), "torno plugin check "+s.name+" shows what it says")
	}
	return s.fail(codeOf(err), "", "")
}

func (in *instance) alive() bool { return !isClosed(in.runner.process.Done()) }

// stop ends the plugin: in good order where there is a way to, so that it gives back what it has leased, else at once.
// It returns once nothing of it is left.
func (in *instance) stop(orderly bool) {
	in.stopping.Do(func() {
		if orderly && in.alive() {
			_ = in.Close() // who does not close in time is killed
		}
		in.kill()
		close(in.stopped)
	})
	<-in.stopped
}

// kill kills the process, and lets go-plugin clear away what it holds.
func (in *instance) kill() {
	_ = in.runner.Kill(context.Background())
	in.client.Kill()
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// openProgram opens what is executed, if it is what was declared.
func (s *supervisor) openProgram() (*os.File, error) {
	var want [sha256.Size]byte
	if n, err := hex.Decode(want[:], []byte(s.config.SHA256)); err != nil || n != len(want) {
		return nil, s.fail(CodeChanged, "no SHA-256 was declared", "")
	}
	program, got, err := confine.OpenProgram(s.config.Path, want)
	var confined *confine.Error
	switch {
	case err == nil:
		return program, nil
	case errors.Is(err, confine.ErrChanged):
		return nil, s.fail(CodeChanged, "it is "+hex.EncodeToString(got[:]), "if the plugin was updated, put this SHA-256 into broker.toml and restart the broker")
	case errors.As(err, &confined):
		return nil, s.fail(CodeMissing, confined.Error(), confined.Hint)
	}
	return nil, s.fail(CodeMissing, err.Error(), "")
}
