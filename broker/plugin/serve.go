package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"torno.internal/broker/internal/pluginpb"
)

// Name is what a plugin is called in go-plugin's set of plugins.
const Name = "torno"

// Serve makes the calling program a plugin that answers by impl, a Source or a Signer or both. It returns when the
// broker has gone; started by anybody else it says what it is, and ends the program.
func Serve(impl any) {
	if _, _, err := kinds(impl); err != nil {
		fmt.Fprintln(os.Stderr, "plugin:", err)
		os.Exit(1)
	}
	goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig: Handshake,
		VersionedPlugins: map[int]goplugin.PluginSet{
			ProtocolVersion: {Name: &wire{impl: impl}},
		},
		GRPCServer: func(opts []grpc.ServerOption) *grpc.Server { return NewServer(opts...) },
		Logger:     hclog.NewNullLogger(),
	})
}

// NewServer returns a gRPC server with the limits of the protocol, which survives panics of what it calls.
func NewServer(opts ...grpc.ServerOption) *grpc.Server {
	return grpc.NewServer(append(opts,
		grpc.MaxRecvMsgSize(maxRequest),
		grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (resp any, err error) {
			defer survive(&err)
			return next(ctx, req)
		}),
		grpc.StreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
			defer survive(&err)
			return next(srv, ss)
		}),
	)...)
}

// survive makes a panic an error that says nothing.
func survive(err *error) {
	if recover() != nil {
		*err = status.Error(codes.Internal, "")
	}
}

// maxRequest bounds what a plugin is sent in one message: its configuration with all of its files.
const maxRequest = 4 << 20

// Register has s answer by impl, a Source or a Signer or both.
func Register(s grpc.ServiceRegistrar, impl any) error {
	source, signer, err := kinds(impl)
	if err != nil {
		return err
	}
	pluginpb.RegisterPluginServer(s, &pluginServer{impl: impl})
	if source != nil {
		pluginpb.RegisterSourceServer(s, &sourceServer{impl: source})
	}
	if signer != nil {
		pluginpb.RegisterSignerServer(s, &signerServer{impl: signer})
	}
	return nil
}

func kinds(impl any) (Source, Signer, error) {
	source, _ := impl.(Source)
	signer, _ := impl.(Signer)
	if source == nil && signer == nil {
		return nil, nil, fmt.Errorf("%T is neither a Source nor a Signer", impl)
	}
	return source, signer, nil
}

// wire is both ends of the protocol for go-plugin.
type wire struct {
	goplugin.NetRPCUnsupportedPlugin
	impl any // of the plugin's end
}

// GRPCServer implements goplugin.GRPCPlugin.
func (w *wire) GRPCServer(_ *goplugin.GRPCBroker, s *grpc.Server) error { return Register(s, w.impl) }

// GRPCClient implements goplugin.GRPCPlugin.
func (w *wire) GRPCClient(_ context.Context, _ *goplugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return NewClient(conn), nil
}

// Clients are the plugins of go-plugin's client, by the version of the protocol. Dispensing Name gives a *Client.
func Clients() map[int]goplugin.PluginSet {
	return map[int]goplugin.PluginSet{ProtocolVersion: {Name: &wire{}}}
}

type pluginServer struct {
	pluginpb.UnimplementedPluginServer
	impl any
}

func (s *pluginServer) Describe(context.Context, *pluginpb.DescribeRequest) (*pluginpb.DescribeResponse, error) {
	_, source := s.impl.(Source)
	_, signer := s.impl.(Signer)
	_, watches := s.impl.(Watcher)
	return &pluginpb.DescribeResponse{Source: source, Signer: signer, Watches: watches}, nil
}

func (s *pluginServer) Configure(ctx context.Context, r *pluginpb.ConfigureRequest) (*pluginpb.ConfigureResponse, error) {
	c, ok := s.impl.(Configurer)
	if !ok {
		if len(r.Config) > len("{}") || len(r.Files) > 0 {
			return nil, toStatus(ErrInvalid)
		}
		return &pluginpb.ConfigureResponse{}, nil
	}
	if err := c.Configure(ctx, Config{JSON: r.Config, Files: r.Files}); err != nil {
		return nil, told("configure", err)
	}
	return &pluginpb.ConfigureResponse{}, nil
}

func (s *pluginServer) Close(context.Context, *pluginpb.CloseRequest) (*pluginpb.CloseResponse, error) {
	if c, ok := s.impl.(io.Closer); ok {
		if err := c.Close(); err != nil {
			return nil, told("close", err)
		}
	}
	return &pluginpb.CloseResponse{}, nil
}

type sourceServer struct {
	pluginpb.UnimplementedSourceServer
	impl Source
}

func (s *sourceServer) Fetch(ctx context.Context, r *pluginpb.FetchRequest) (*pluginpb.FetchResponse, error) {
	if err := CheckRef(r.Ref); err != nil {
		return nil, toStatus(err)
	}
	sec, err := s.impl.Fetch(ctx, r.Ref)
	if err != nil {
		return nil, told("fetch", err)
	}
	resp := &pluginpb.FetchResponse{Value: sec.Value, Version: sec.Version}
	if !sec.Expires.IsZero() {
		resp.Expires = sec.Expires.UnixMilli()
	}
	return resp, nil
}

func (s *sourceServer) Watch(r *pluginpb.WatchRequest, stream pluginpb.Source_WatchServer) error {
	w, ok := s.impl.(Watcher)
	if !ok {
		return status.Error(codes.Unimplemented, "")
	}
	if err := CheckRef(r.Ref); err != nil {
		return toStatus(err)
	}
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	err := w.Watch(ctx, r.Ref, func() {
		if err := stream.Send(&pluginpb.WatchResponse{}); err != nil {
			cancel(err)
		}
	})
	if err == nil {
		err = errors.New("the watch ended")
	}
	return told("watch", err)
}

type signerServer struct {
	pluginpb.UnimplementedSignerServer
	impl Signer
}

func (s *signerServer) Sign(ctx context.Context, r *pluginpb.SignRequest) (*pluginpb.SignResponse, error) {
	if err := CheckRef(r.Key); err != nil {
		return nil, toStatus(err)
	}
	signature, err := s.impl.Sign(ctx, SignRequest{
		Key: r.Key, Algorithm: r.Algorithm, Message: r.Message, Agent: r.Agent, Authority: r.Authority,
	})
	if err != nil {
		return nil, told("sign", err)
	}
	return &pluginpb.SignResponse{Signature: signature}, nil
}

// told writes an error, which the operator who checks the plugin is shown, to standard error, and returns what of it
// travels.
func told(call string, err error) error {
	if !errors.Is(err, context.Canceled) {
		fmt.Fprintf(os.Stderr, "%s: %v\n", call, err)
	}
	return toStatus(err)
}
