// Package detach reads what is asked of /v1/sign and answers it: with the proof for one request, which the machine then sends by a
// way of its own. It knows secrets that sign, and no others: what would be put into a request can't be named here.
package detach

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"torno.internal/broker/internal/sign"
	"torno.internal/protocol"
	"torno.internal/protocol/secret"
)

// Read returns the request that is asked about, as it would be sent through the broker. Its error says what is wrong with it.
func Read(ask *protocol.SignRequest) (*protocol.Request, error) {
	r := &protocol.Request{Method: ask.Method, Scheme: "https", Authority: ask.Authority, Path: ask.Path}
	switch {
	case !protocol.IsToken(ask.Method) || len(ask.Method) > protocol.MaxMethod || ask.Method == "CONNECT" || ask.Method == "TRACE":
		return nil, fmt.Errorf("method %q", ask.Method)
	case len(ask.Path) > protocol.MaxPath || !protocol.IsPath(ask.Path) || ask.Path[0] != '/':
		return nil, fmt.Errorf("path %q", ask.Path)
	case len(ask.SHA256) != protocol.DigestSize:
		return nil, fmt.Errorf("a digest of %d bytes, %d are wanted", len(ask.SHA256), protocol.DigestSize)
	case len(ask.Fields) > protocol.MaxFields:
		return nil, fmt.Errorf("%d fields, at most %d are read", len(ask.Fields), protocol.MaxFields)
	}
	for _, f := range ask.Fields {
		switch {
		case !protocol.IsToken(f.Name) || len(f.Name) > protocol.MaxFieldName || f.Name != strings.ToLower(f.Name):
			return nil, fmt.Errorf("field name %q, lower case is wanted", f.Name)
		case !protocol.IsFieldValue(f.Value):
			return nil, fmt.Errorf("field %s: %q", f.Name, f.Value)
		case f.Name == "host" || f.Name == "content-length" || protocol.IsConnectionField(f.Name) || strings.HasPrefix(f.Name, "torno-"):
			return nil, fmt.Errorf("field %s is not the request's own", f.Name)
		}
		r.Fields = append(r.Fields, protocol.Field(f))
	}
	return r, nil
}

// Answer makes the proof for what is asked, whose Host field will be host, at the host's time now.
func Answer(held *sign.Held, ask *protocol.SignRequest, host string, now time.Time) (*protocol.SignResponse, error) {
	r := &sign.Request{Method: ask.Method, Host: host, Target: ask.Path, Digest: ask.SHA256, Length: -1}
	for _, f := range ask.Fields {
		r.Fields = append(r.Fields, protocol.Field(f))
	}
	proof, remove, err := held.Prove(r, now)
	if err != nil {
		return nil, err
	}
	slices.Sort(remove)
	answer := &protocol.SignResponse{Remove: slices.Compact(remove), Fields: make([]protocol.SignField, 0, len(proof.Fields)), Expires: proof.Expires.UTC()}
	if answer.Remove == nil {
		answer.Remove = []string{}
	}
	for _, f := range proof.Fields {
		answer.Fields = append(answer.Fields, protocol.SignField{Name: f.Name, Value: text(f.Value)})
	}
	return answer, nil
}

// text returns what a proof holds, which is no secret, and wipes it.
func text(v secret.Value) string {
	defer v.Wipe()
	return string(v.AppendTo(nil))
}
