package credential

import (
	"fmt"
	"strings"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// header sends the secret in fields made from templates.
type header struct{ fields []templated }

// A templated field holds the secret between two literals.
type templated struct {
	name string // lower case
	control.Template
}

func newHeader(m control.Meta) (*header, error) {
	h := &header{}
	for _, f := range m.Inject.Fields {
		t, err := control.ParseTemplate(m.Name, f.Value)
		if err != nil {
			return nil, fmt.Errorf("secret %s: header %q: %w", m.Name, f.Name, err)
		}
		h.fields = append(h.fields, templated{strings.ToLower(f.Name), t})
	}
	return h, nil
}

func (h *header) Strip(name string) bool {
	name = protocol.FoldName(name)
	if isAuthField(name) {
		return true
	}
	for i := range h.fields {
		if protocol.FoldName(h.fields[i].name) == name {
			return true
		}
	}
	return false
}

func (h *header) Apply(value secret.Value, _ *protocol.Request) ([]Field, error) {
	out := make([]Field, 0, len(h.fields))
	for _, f := range h.fields {
		out = append(out, field(f.name, f.Prefix, value, f.Suffix))
	}
	return out, nil
}
