package credential

import (
	"torno.internal/protocol"
	"torno.internal/protocol/secret"
)

// bearer sends the secret as a bearer token (RFC 6750 §2.1).
type bearer struct{}

func (bearer) Strip(name string) bool { return isAuthField(protocol.FoldName(name)) }

func (bearer) Apply(value secret.Value, _ *protocol.Request) ([]Field, error) {
	return []Field{field("authorization", "Bearer ", value, "")}, nil
}
