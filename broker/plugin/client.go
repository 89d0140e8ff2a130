package plugin

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"

	"torno.internal/broker/internal/pluginpb"
)

// A Client asks a plugin. It checks what the plugin answers, and is a Watcher, a Signer, a Configurer and an io.Closer
// whatever the plugin is: Describe says what it is. It is safe for concurrent use. Errors are *CallError or say how the
// answer was wrong, and quote none of it.
type Client struct {
	plugin pluginpb.PluginClient
	source pluginpb.SourceClient
	signer pluginpb.SignerClient
}

// NewClient returns a Client of the plugin at the other end of conn.
func NewClient(conn grpc.ClientConnInterface) *Client {
	return &Client{pluginpb.NewPluginClient(conn), pluginpb.NewSourceClient(conn), pluginpb.NewSignerClient(conn)}
}

// A Description says what a plugin is.
type Description struct{ Source, Signer, Watches bool }

// Describe asks the plugin what it is.
func (c *Client) Describe(ctx context.Context) (Description, error) {
	r, err := c.plugin.Describe(ctx, &pluginpb.DescribeRequest{})
	if err != nil {
		return Description{}, fromStatus("Describe", err)
	}
	return Description{Source: r.Source, Signer: r.Signer, Watches: r.Watches}, nil
}

// Configure implements Configurer.
func (c *Client) Configure(ctx context.Context, config Config) error {
	_, err := c.plugin.Configure(ctx, &pluginpb.ConfigureRequest{Config: config.JSON, Files: config.Files})
	if err != nil {
		return fromStatus("Configure", err)
	}
	return nil
}

// Close implements io.Closer; it waits for closeWait at most.
func (c *Client) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeWait)
	defer cancel()
	if _, err := c.plugin.Close(ctx, &pluginpb.CloseRequest{}); err != nil {
		return fromStatus("Close", err)
	}
	return nil
}

// closeWait is how long a plugin may take to give back what it has leased.
const closeWait = 5 * time.Second

// Fetch implements Source.
func (c *Client) Fetch(ctx context.Context, ref string) (Secret, error) {
	if err := CheckRef(ref); err != nil {
		return Secret{}, err
	}
	r, err := c.source.Fetch(ctx, &pluginpb.FetchRequest{Ref: ref})
	if err != nil {
		return Secret{}, fromStatus("Fetch", err)
	}
	sec := Secret{Value: r.Value, Version: r.Version}
	if r.Expires != 0 {
		sec.Expires = time.UnixMilli(r.Expires)
	}
	if err := checkSecret(&sec, time.Now()); err != nil {
		clear(r.Value)
		return Secret{}, fmt.Errorf("the answer to Fetch: %w", err)
	}
	return sec, nil
}

// Watch implements Watcher.
func (c *Client) Watch(ctx context.Context, ref string, changed func()) error {
	if err := CheckRef(ref); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.source.Watch(ctx, &pluginpb.WatchRequest{Ref: ref})
	for err == nil {
		if _, err = stream.Recv(); err == nil {
			changed()
		}
	}
	return fromStatus("Watch", err)
}

// Sign implements Signer.
func (c *Client) Sign(ctx context.Context, r SignRequest) ([]byte, error) {
	if err := CheckRef(r.Key); err != nil {
		return nil, err
	}
	if len(r.Message) > MaxMessage {
		return nil, fmt.Errorf("%d bytes to sign, at most %d are sent to a plugin", len(r.Message), MaxMessage)
	}
	a, err := c.signer.Sign(ctx, &pluginpb.SignRequest{
		Key: r.Key, Algorithm: r.Algorithm, Message: r.Message, Agent: r.Agent, Authority: r.Authority,
	})
	if err != nil {
		return nil, fromStatus("Sign", err)
	}
	if err := checkSignature(r.Algorithm, a.Signature); err != nil {
		return nil, fmt.Errorf("the answer to Sign: %w", err)
	}
	return a.Signature, nil
}

// signatureSizes are how long signatures are, in bytes: the least and the most.
var signatureSizes = map[string][2]int{
	Ed25519: {64, 64}, ECDSAP256: {64, 64}, ECDSAP384: {96, 96}, HMAC: {32, 32}, AWS4HMAC: {32, 32},
	RSAPSS: {256, 1024}, RSAPKCS1: {256, 1024},
}

// checkSignature reports what can't be a signature by an algorithm, by its length.
func checkSignature(algorithm string, signature []byte) error {
	size, ok := signatureSizes[algorithm]
	if !ok {
		size = [2]int{1, MaxSignature}
	}
	if n := len(signature); n < size[0] || n > size[1] {
		return fmt.Errorf("%d bytes are no signature by %s", n, algorithm)
	}
	return nil
}

// CheckRef accepts a reference, or the name of a key: 1 to MaxRef bytes of visible ASCII and inner spaces.
func CheckRef(ref string) error {
	switch {
	case ref == "" || len(ref) > MaxRef:
		return fmt.Errorf("%w: a reference of %d bytes, 1 to %d are wanted", ErrInvalid, len(ref), MaxRef)
	case !visible(ref) || strings.TrimSpace(ref) != ref:
		return fmt.Errorf("%w: a reference holds what is not visible ASCII", ErrInvalid)
	}
	return nil
}

// maxExpires is the last moment that a version may expire at.
var maxExpires = time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)

func checkSecret(s *Secret, now time.Time) error {
	switch {
	case len(s.Value) == 0:
		return errors.New("the value is empty")
	case len(s.Value) > MaxValue:
		return fmt.Errorf("the value has %d bytes, at most %d fit", len(s.Value), MaxValue)
	case len(s.Version) > MaxVersion || !visible(s.Version):
		return fmt.Errorf("a version of %d bytes, at most %d of visible ASCII are wanted", len(s.Version), MaxVersion)
	case !s.Expires.IsZero() && !s.Expires.After(now):
		return errors.New("the value has expired already")
	case s.Expires.After(maxExpires):
		return errors.New("the value expires in the far future; that it never does is said by 0")
	}
	return nil
}

// visible reports whether s is visible ASCII and spaces.
func visible(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}
