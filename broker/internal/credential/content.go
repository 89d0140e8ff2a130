package credential

import (
	"torno.internal/protocol"
	"torno.internal/protocol/secret"
)

// content sends the secret in content alone, where the workload has its placeholder: see Replacer. What the
// workload has in the head is left as it is.
type content struct{}

func (content) Strip(string) bool { return false }

func (content) Apply(secret.Value, *protocol.Request) ([]Field, error) { return nil, nil }
