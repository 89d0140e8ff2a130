// Package plugin lets programs of others give torno's broker secrets from where they are kept, and sign for it with
// keys that the broker never has. A plugin is a program that calls Serve with a Source, a Signer, or what is both:
//
//	func main() { plugin.Serve(mySource{}) }
//
// The broker starts it when it is first needed, as a process that sees nothing of the host but what the operator
// declares, and kills it when it misbehaves. What it writes to its standard error is not logged. docs/plugins.md says
// more; package plugintest tests a plugin the way torno tests its own.
//
// The protocol is gRPC as in plugin.proto, on the handshake of github.com/hashicorp/go-plugin, so that a plugin may be
// written in another language.
package plugin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	goplugin "github.com/hashicorp/go-plugin"
)

// ProtocolVersion is the version of the protocol that this package speaks.
const ProtocolVersion = 1

// Handshake is what the broker and its plugins know each other by. It is no secret and protects nothing.
var Handshake = goplugin.HandshakeConfig{
	ProtocolVersion:  ProtocolVersion,
	MagicCookieKey:   "TORNO_PLUGIN",
	MagicCookieValue: "5f8a1c60-torno-source-or-signer",
}

// Limits on what is said, in bytes.
const (
	MaxRef       = 1 << 10   // of a reference or the name of a key
	MaxValue     = 64 << 10  // of a secret
	MaxVersion   = 128       // of a version: visible ASCII
	MaxMessage   = 256 << 10 // of what is signed
	MaxSignature = 8 << 10
	MaxConfig    = 64 << 10 // of a configuration, and of each file with it
)

// A Source fetches secrets. Its methods may be called at the same time. Beside it a type may be a Watcher, a
// Configurer and an io.Closer.
type Source interface {
	// Fetch returns the newest version of the secret that ref names, in the source's own words. It ends when ctx does.
	// Errors that match one of this package's are told to the operator as that; of others only that there was one.
	Fetch(ctx context.Context, ref string) (Secret, error)
}

// A Secret is one version of a secret.
type Secret struct {
	Value   []byte    // 1 to MaxValue bytes
	Version string    // another where Value is another; empty: the source has no versions
	Expires time.Time // from then on the value is worth nothing; Fetch may move it, as a lease is renewed. Zero: never
}

// A Watcher is a Source that is told of changes.
type Watcher interface {
	Source
	// Watch calls changed each time that the secret ref may have become another, until ctx ends. It returns early only
	// with an error, and is then called again later.
	Watch(ctx context.Context, ref string, changed func()) error
}

// A Signer signs with keys that it keeps, or has others keep. Its method may be called at the same time. Beside it a
// type may be a Configurer and an io.Closer.
type Signer interface {
	// Sign returns the signature of r.Message. It ends when ctx does; errors are as those of Source.Fetch.
	Sign(ctx context.Context, r SignRequest) ([]byte, error)
}

// Algorithms that a signature may be wanted by: the names of RFC 9421 §3.3, and that of AWS Signature Version 4.
const (
	Ed25519   = "ed25519"           // 64 bytes (RFC 8032)
	ECDSAP256 = "ecdsa-p256-sha256" // both numbers, 32 bytes each
	ECDSAP384 = "ecdsa-p384-sha384" // both numbers, 48 bytes each
	RSAPSS    = "rsa-pss-sha512"    // with 64 bytes of salt
	RSAPKCS1  = "rsa-v1_5-sha256"
	HMAC      = "hmac-sha256"
	AWS4HMAC  = "aws4-hmac-sha256" // the message is AWS's string to sign, which names the scope that the key is derived for
)

// A SignRequest says what is to be signed.
type SignRequest struct {
	Key       string // which key, in the signer's own words
	Algorithm string
	Message   []byte // is not hashed

	Agent     string // whose request it is of
	Authority string // where that goes, host:port
}

// A Configurer is configured before it is asked for anything.
type Configurer interface {
	// Configure is called once.
	Configure(ctx context.Context, c Config) error
}

// A Config is what the operator's file says of the plugin.
type Config struct {
	JSON  []byte            // the table config, as JSON
	Files map[string][]byte // contents of the table files, by name
}

// Decode reads the configuration into the struct that v points to. What the struct does not know, and what stands there
// twice, is an error.
func (c Config) Decode(v any) error {
	d := json.NewDecoder(bytes.NewReader(c.JSON))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: configuration: %w", ErrInvalid, err)
	}
	return nil
}
