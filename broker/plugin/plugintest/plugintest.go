// Package plugintest tests plugins for torno the way torno tests its own: by all that the broker asks of one, through
// the protocol. Source and Signer test a type in the test's own process, SourceProgram and SignerProgram a program.
//
//	func TestConformance(t *testing.T) {
//		plugintest.Source(t, mySource{}, plugintest.SourceCase{
//			Have:    map[string]string{"greeting": "hello"},
//			Missing: "nothing-of-that-name",
//		})
//	}
package plugintest

import (
	"bytes"
	"context"
	"net"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"torno.internal/broker/plugin"
)

// patience is how long one call may take.
const patience = 30 * time.Second

// Dial serves impl in this process and returns what asks it through the protocol.
func Dial(t *testing.T, impl any) *plugin.Client {
	t.Helper()
	ln := bufconn.Listen(64 << 10)
	server := plugin.NewServer()
	if err := plugin.Register(server, impl); err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(ln) })
	conn, err := grpc.NewClient("passthrough:plugin",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return ln.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		server.Stop()
		serving.Wait()
	})
	return plugin.NewClient(conn)
}

// A Program is a plugin that runs, without the confinement that the broker puts it under.
type Program struct {
	*plugin.Client
	client *goplugin.Client
	stderr *output
}

// Start starts the program at path and shakes hands with it. It ends with the test.
func Start(t *testing.T, path string) *Program {
	t.Helper()
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	p := &Program{stderr: &output{}}
	p.client = goplugin.NewClient(&goplugin.ClientConfig{
		HandshakeConfig: plugin.Handshake, VersionedPlugins: plugin.Clients(),
		Cmd: exec.Command(path), SkipHostEnv: true, AutoMTLS: true,
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		Logger:           hclog.NewNullLogger(), Stderr: p.stderr, SyncStdout: p.stderr, SyncStderr: p.stderr,
		StartTimeout: patience,
	})
	t.Cleanup(p.client.Kill)
	protocol, err := p.client.Client()
	if err != nil {
		t.Fatalf("starting %s: %v", path, err)
	}
	dispensed, err := protocol.Dispense(plugin.Name)
	if err != nil {
		t.Fatal(err)
	}
	p.Client = dispensed.(*plugin.Client)
	return p
}

// Output returns what the program has written to its standard error so far.
func (p *Program) Output() []byte { return p.stderr.bytes() }

// An output keeps what is written, for several writers.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) bytes() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	return bytes.Clone(o.text.Bytes())
}

// within runs f with a context that ends in time, and fails the test where f does not end soon after.
func within(t *testing.T, what string, f func(context.Context)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	done := make(chan struct{})
	go func() { defer close(done); f(ctx) }()
	select {
	case <-done:
	case <-time.After(patience + patience/2):
		t.Fatalf("%s does not end when its context does", what)
	}
}
