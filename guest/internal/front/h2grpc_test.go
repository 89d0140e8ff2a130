package front

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"torno.internal/protocol"
	"torno.internal/protocol/bhttp"
)

// forwardTo returns a broker that forwards over HTTP/2 without TLS to addr, both ways at once.
func (h *house) forwardTo(addr string) func(*protocol.Request, *bhttp.Reader, *bhttp.Writer, net.Conn) error {
	tr := &http2.Transport{AllowHTTP: true, DisableCompression: true, DialTLSContext: func(ctx context.Context, _, _ string, _ *tls.Config) (net.Conn, error) { //nolint:staticcheck // net/http's speaks HTTP/1.1 as well
		var d net.Dialer
		return d.DialContext(ctx, "tcp", addr)
	}}
	h.t.Cleanup(tr.CloseIdleConnections) //nolint:staticcheck // as above
	return func(req *protocol.Request, r *bhttp.Reader, w *bhttp.Writer, c net.Conn) error {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		path, err := url.ParseRequestURI(req.Path)
		if err != nil {
			return err
		}
		path.Scheme, path.Host = "http", addr
		body := &content{r: r, cancel: cancel, seen: make(chan error, 1)}
		out := (&http.Request{Method: req.Method, URL: path, Header: http.Header{}, Host: req.Authority, Body: body}).WithContext(ctx)
		for _, l := range req.Fields {
			if !strings.HasPrefix(l.Name, "torno-") && l.Name != "grpc-timeout" { // the client's clock shall be the first to ring
				out.Header.Add(l.Name, l.Value)
			}
		}
		resp, err := tr.RoundTrip(out) //nolint:staticcheck // as above
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if err := answer(resp, w); err != nil {
			return err
		}
		return <-body.seen // the stream's next request, or its end
	}
}

// A content is a request's, whose failure aborts its exchange.
type content struct {
	r       *bhttp.Reader
	cancel  context.CancelFunc
	watched atomic.Bool
	seen    chan error // what watch saw, or that nobody will look
}

func (b *content) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if errors.Is(err, io.EOF) {
		var trailer protocol.Fields
		if terr := b.r.ReadTrailer(&trailer); terr != nil {
			err = terr
		}
		b.watch()
	}
	if err != nil && !errors.Is(err, io.EOF) {
		b.cancel()
	}
	return n, err
}

// watch cancels when the stream ends before the response has.
func (b *content) watch() {
	if b.watched.Swap(true) {
		return
	}
	go func() {
		err := b.r.Await()
		if err != nil {
			b.cancel()
		}
		b.seen <- err
	}()
}

// Close is called by who wants no more of it, maybe long before its end: then the stream is of no more use.
func (b *content) Close() error {
	if !b.watched.Swap(true) {
		b.seen <- errors.New("content that nobody reads")
	}
	return nil
}

func answer(resp *http.Response, w *bhttp.Writer) error {
	head := protocol.Response{Status: resp.StatusCode, Fields: fieldsOf(resp.Header)}
	if err := w.WriteResponse(&head); err != nil {
		return err
	}
	if resp.Body != http.NoBody {
		if err := w.Flush(); err != nil {
			return err
		}
	}
	if _, err := bhttp.Copy(w, resp.Body, func(int64) error { return w.Flush() }); err != nil {
		return err
	}
	return w.Close(fieldsOf(resp.Trailer))
}

func fieldsOf(h http.Header) (f protocol.Fields) {
	for name, values := range h {
		for _, v := range values {
			f = append(f, protocol.Field{Name: strings.ToLower(name), Value: v})
		}
	}
	return f
}

// The service of the tests: unary, both kinds of streams, and both at once.
var grpcService = grpc.ServiceDesc{
	ServiceName: "test.Echo",
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{MethodName: "Unary", Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		in := &wrapperspb.StringValue{}
		if err := decode(in); err != nil {
			return nil, err
		}
		md, _ := metadata.FromIncomingContext(ctx)
		_ = grpc.SetTrailer(ctx, metadata.Pairs("x-trailer", "t"))
		switch in.Value {
		case "fail":
			return nil, grpcstatus.Error(codes.FailedPrecondition, "no, 100% ünlikely")
		case "hang":
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return wrapperspb.String(in.Value + " " + strings.Join(md["x-ask"], ",")), nil
	}}},
	Streams: []grpc.StreamDesc{
		{StreamName: "Client", ClientStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
			total := 0
			for {
				var in wrapperspb.BytesValue
				if err := s.RecvMsg(&in); errors.Is(err, io.EOF) {
					return s.SendMsg(wrapperspb.String(fmt.Sprint(total)))
				} else if err != nil {
					return err
				}
				total += len(in.Value)
			}
		}},
		{StreamName: "Server", ServerStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
			var in wrapperspb.Int64Value
			if err := s.RecvMsg(&in); err != nil {
				return err
			}
			for range in.Value {
				if err := s.SendMsg(wrapperspb.Bytes(make([]byte, 10000))); err != nil {
					return err
				}
			}
			return nil
		}},
		{StreamName: "Both", ClientStreams: true, ServerStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
			for {
				var in wrapperspb.StringValue
				if err := s.RecvMsg(&in); errors.Is(err, io.EOF) {
					return nil
				} else if err != nil {
					return err
				}
				if err := s.SendMsg(&in); err != nil {
					return err
				}
			}
		}},
	},
}

// grpcHouse returns a client whose calls go through the front to a server.
func grpcHouse(t *testing.T, plain bool) *grpc.ClientConn {
	t.Helper()
	h := newHouse(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	server.RegisterService(&grpcService, nil)
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(ln) }()
	t.Cleanup(func() { server.Stop(); <-done })
	h.broker = h.forwardTo(ln.Addr().String())
	creds := credentials.NewTLS(h.tlsConfig("a.example"))
	if plain {
		creds = insecure.NewCredentials()
	}
	client, err := grpc.NewClient("passthrough:///a.example:443", grpc.WithTransportCredentials(creds), grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", h.addr)
	}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func TestGRPC(t *testing.T) {
	for name, plain := range map[string]bool{"TLS": false, "plain": true} {
		t.Run(name, func(t *testing.T) {
			client := grpcHouse(t, plain)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			grpcUnary(t, ctx, client)
			grpcStreams(t, ctx, client)
			grpcPingPong(t, ctx, client)
			grpcEnds(t, ctx, client)
		})
	}
}

func grpcUnary(t *testing.T, ctx context.Context, client *grpc.ClientConn) {
	t.Helper()
	var out wrapperspb.StringValue
	var trailer metadata.MD
	ctx = metadata.AppendToOutgoingContext(ctx, "x-ask", "1", "x-ask", "2")
	if err := client.Invoke(ctx, "/test.Echo/Unary", wrapperspb.String("hello"), &out, grpc.Trailer(&trailer)); err != nil || out.Value != "hello 1,2" {
		t.Errorf("unary: %q, %v", out.Value, err)
	}
	if got := trailer.Get("x-trailer"); len(got) != 1 || got[0] != "t" {
		t.Errorf("unary: trailer %v", trailer)
	}
	err := client.Invoke(ctx, "/test.Echo/Unary", wrapperspb.String("fail"), &out)
	if s := grpcstatus.Convert(err); s.Code() != codes.FailedPrecondition || s.Message() != "no, 100% ünlikely" {
		t.Errorf("failing: %v", err)
	}
	if err := client.Invoke(ctx, "/test.Echo/None", wrapperspb.String(""), &out); grpcstatus.Code(err) != codes.Unimplemented {
		t.Errorf("unknown method: %v", err)
	}
}

func grpcStreams(t *testing.T, ctx context.Context, client *grpc.ClientConn) {
	t.Helper()
	s, err := client.NewStream(ctx, &grpcService.Streams[0], "/test.Echo/Client")
	if err != nil {
		t.Fatal(err)
	}
	for range 500 {
		if err := s.SendMsg(wrapperspb.Bytes(make([]byte, 10000))); err != nil {
			t.Fatal(err)
		}
	}
	_ = s.CloseSend()
	var total wrapperspb.StringValue
	if err := s.RecvMsg(&total); err != nil || total.Value != "5000000" {
		t.Errorf("client stream: %q, %v", total.Value, err)
	}
	if s, err = client.NewStream(ctx, &grpcService.Streams[1], "/test.Echo/Server"); err != nil {
		t.Fatal(err)
	}
	if err := s.SendMsg(wrapperspb.Int64(500)); err != nil {
		t.Fatal(err)
	}
	_ = s.CloseSend()
	n := 0
	for ; err == nil; n++ {
		err = s.RecvMsg(&wrapperspb.BytesValue{})
	}
	if n != 501 || !errors.Is(err, io.EOF) {
		t.Errorf("server stream: %d messages, %v", n-1, err)
	}
}

func grpcPingPong(t *testing.T, ctx context.Context, client *grpc.ClientConn) {
	t.Helper()
	s, err := client.NewStream(ctx, &grpcService.Streams[2], "/test.Echo/Both")
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	const rounds = 1000
	for i := range rounds {
		var back wrapperspb.StringValue
		if err := s.SendMsg(wrapperspb.String(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
		if err := s.RecvMsg(&back); err != nil || back.Value != fmt.Sprint(i) {
			t.Fatalf("round %d: %q, %v", i, back.Value, err)
		}
	}
	t.Logf("%v a round", time.Since(begun)/rounds)
	_ = s.CloseSend()
	if err := s.RecvMsg(&wrapperspb.StringValue{}); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}

func grpcEnds(t *testing.T, ctx context.Context, client *grpc.ClientConn) {
	t.Helper()
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if err := client.Invoke(short, "/test.Echo/Unary", wrapperspb.String("hang"), &wrapperspb.StringValue{}); grpcstatus.Code(err) != codes.DeadlineExceeded {
		t.Errorf("deadline: %v", err)
	}
	cancelled, cancel := context.WithCancel(ctx)
	time.AfterFunc(50*time.Millisecond, cancel)
	if err := client.Invoke(cancelled, "/test.Echo/Unary", wrapperspb.String("hang"), &wrapperspb.StringValue{}); grpcstatus.Code(err) != codes.Canceled {
		t.Errorf("cancel: %v", err)
	}
	if err := client.Invoke(ctx, "/test.Echo/Unary", wrapperspb.String("hello"), &wrapperspb.StringValue{}); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}
