package protocol_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/bhttp"
)

// specLimits are the constants of protocol.go that SPEC.md §10 lists.
var specLimits = map[string]any{
	"MaxMethod": protocol.MaxMethod, "MaxAuthority": protocol.MaxAuthority, "MaxPath": protocol.MaxPath,
	"MaxFields": protocol.MaxFields, "MaxFieldName": protocol.MaxFieldName, "MaxFieldValue": protocol.MaxFieldValue,
	"MaxHead": protocol.MaxHead, "MaxInterim": protocol.MaxInterim, "MaxChunk": protocol.MaxChunk,
	"MaxChannelBody": protocol.MaxChannelBody, "MaxJSONDepth": protocol.MaxJSONDepth,
	"MaxStreams": protocol.MaxStreams, "MaxIdleStreams": protocol.MaxIdleStreams, "StreamWait": protocol.StreamWait, "MaxDetached": protocol.MaxDetached,
	"MaxLeaves": protocol.MaxLeaves, "LeafRate": protocol.LeafRate, "MaxNames": protocol.MaxNames, "MaxAgents": protocol.MaxAgents,
	"MaxWorkspaceEntries": protocol.MaxWorkspaceEntries, "MaxWorkspaceBytes": protocol.MaxWorkspaceBytes,
	"MaxWorkspaceNames": protocol.MaxWorkspaceNames, "MaxWorkspacePath": protocol.MaxWorkspacePath,
	"MaxWorkspaceElement": protocol.MaxWorkspaceElement, "MaxPublished": protocol.MaxPublished, "PublishTimeout": protocol.PublishTimeout,
	"PrefaceTimeout": protocol.PrefaceTimeout, "HelloTimeout": protocol.HelloTimeout, "HeadTimeout": protocol.HeadTimeout,
	"DialTimeout": protocol.DialTimeout, "TLSTimeout": protocol.TLSTimeout,
	"ResponseHeadTimeout": protocol.ResponseHeadTimeout, "IdleTimeout": protocol.IdleTimeout,
	"TunnelTimeout": protocol.TunnelTimeout, "StreamIdleTimeout": protocol.StreamIdleTimeout,
	"ContinueTimeout": protocol.ContinueTimeout, "SessionLifetime": protocol.SessionLifetime,
	"LeafLifetime": protocol.LeafLifetime, "LeafBackdate": protocol.LeafBackdate, "RevokeDeadline": protocol.RevokeDeadline,
}

func TestSpecLimits(t *testing.T) {
	spec := readSpec(t)
	for name, value := range specLimits {
		if d, ok := value.(time.Duration); ok {
			value = fmt.Sprintf("%g s", d.Seconds())
			if d >= 1000*time.Second {
				value = fmt.Sprintf("%d s", int(d.Seconds()))
			}
		}
		if row := fmt.Sprintf("| %s | %v |", name, value); !strings.Contains(spec, row) {
			t.Errorf("no row %q", row)
		}
	}
	for _, name := range constants(t, "protocol.go") {
		_, listed := specLimits[name]
		switch name {
		case "Version", "MinVersion", "BrokerPort", "RunPort", "Scheme", "BrokerAuthority", "RunAuthority", "SelfTestAuthority":
			continue
		}
		if !listed {
			t.Errorf("constant %s is not in SPEC.md", name)
		}
	}
}

// constants returns the names of the constants that a file of this package declares.
func constants(t *testing.T, file string) []string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, d := range f.Decls {
		if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.CONST {
			for _, s := range g.Specs {
				for _, n := range s.(*ast.ValueSpec).Names {
					names = append(names, n.Name)
				}
			}
		}
	}
	return names
}

func TestSpecTables(t *testing.T) {
	spec := readSpec(t)
	rows := []string{
		fmt.Sprintf("# The torno protocol, version %d", protocol.Version),
		fmt.Sprintf("| %d | the broker |", protocol.BrokerPort),
		fmt.Sprintf("| %d | the run host |", protocol.RunPort),
		"https://" + protocol.SelfTestAuthority + "/", protocol.FieldReason, protocol.FieldDialled,
	}
	for s := protocol.StatusOK; !strings.HasPrefix(s.String(), "status("); s++ {
		rows = append(rows, fmt.Sprintf("| %d | %s |", s, s))
	}
	for r := protocol.ReasonNone + 1; !strings.HasPrefix(r.String(), "reason("); r++ {
		rows = append(rows, fmt.Sprintf("| `%s` | %d | %s |", r, r.Status(), r.Advice()))
	}
	for k := protocol.KindHello; !strings.HasPrefix(k.String(), "kind("); k++ {
		rows = append(rows, fmt.Sprintf("| %d | %s |", k, k))
	}
	for _, name := range protocol.ConnectionFields {
		rows = append(rows, "`"+name+"`")
	}
	for _, path := range []string{protocol.PathHello, protocol.PathLeaf, protocol.PathSSH, protocol.PathSign} {
		rows = append(rows, "### POST "+path)
	}
	rows = append(rows, "### GET "+protocol.PathEvents)
	for _, path := range []string{
		"GET " + protocol.PathStdin, "POST " + protocol.PathStdout, "POST " + protocol.PathStderr,
		"GET " + protocol.PathRunEvents, "POST " + protocol.PathExit,
		"GET " + protocol.PathWorkspaceIn, "POST " + protocol.PathWorkspaceOut, "POST " + protocol.PathPublished + "N",
	} {
		rows = append(rows, "| `"+path+"` |")
	}
	for _, e := range []protocol.EventType{protocol.EventClock, protocol.EventRevoke, protocol.EventShutdown} {
		rows = append(rows, "| `"+string(e)+"` |")
	}
	for _, e := range []protocol.RunEventType{protocol.RunSignal, protocol.RunWinsize, protocol.RunStop, protocol.RunConnect} {
		rows = append(rows, "| `"+string(e)+"` |")
	}
	for _, row := range rows {
		if !strings.Contains(spec, row) {
			t.Errorf("SPEC.md does not have %q", row)
		}
	}
}

// TestSpecKeys checks that every JSON key of a channel or run body is in SPEC.md.
func TestSpecKeys(t *testing.T) {
	spec := readSpec(t)
	for _, file := range []string{"channel.go", "run.go", "sign.go"} {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile("`json:\"([a-z0-9_]+)").FindAllStringSubmatch(string(source), -1) {
			if !strings.Contains(spec, "`"+m[1]+"`") && !strings.Contains(spec, `"`+m[1]+`":`) {
				t.Errorf("%s: key %q is not in SPEC.md", file, m[1])
			}
		}
	}
}

// specExamples makes the bytes of SPEC.md §11.
func specExamples(t *testing.T) map[string][]byte {
	var tok protocol.Token
	for i := range tok {
		tok[i] = byte(i)
	}
	message := func(write func(w *bhttp.Writer) error, content string, trailer protocol.Fields) []byte {
		var wire bytes.Buffer
		w := bhttp.NewWriter(&wire)
		err := write(w)
		if err == nil {
			_, err = w.Write([]byte(content))
		}
		if err == nil {
			err = w.Close(trailer)
		}
		if err != nil {
			t.Fatal(err)
		}
		return wire.Bytes()
	}
	refusal, _ := protocol.Refusal(protocol.ReasonDenied)
	return map[string][]byte{
		"preface": protocol.Preface{Version: 1, Kind: protocol.KindForward, Token: tok}.AppendTo(nil),
		"reply":   protocol.PrefaceReply{Version: 1}.AppendTo(nil),
		"request": message(func(w *bhttp.Writer) error {
			return w.WriteRequest(&protocol.Request{
				Method: "POST", Scheme: "https", Authority: "api.example.com", Path: "/v1/messages",
				Fields: protocol.Fields{{Name: "content-type", Value: "text/plain"}},
			})
		}, "hello", nil),
		"response": message(func(w *bhttp.Writer) error {
			hints := protocol.Response{Status: 103, Fields: protocol.Fields{{Name: "link", Value: "</style.css>"}}}
			if err := w.WriteResponse(&hints); err != nil {
				return err
			}
			return w.WriteResponse(&protocol.Response{Status: 200})
		}, "hi", protocol.Fields{{Name: "grpc-status", Value: "0"}}),
		"refusal": message(func(w *bhttp.Writer) error { return w.WriteResponse(&refusal) }, "", nil),
	}
}

func TestSpecExamples(t *testing.T) {
	found := make(map[string][]byte)
	for _, m := range regexp.MustCompile("(?s)```hex ([a-z]+)\n(.*?)```").FindAllStringSubmatch(readSpec(t), -1) {
		b, err := hex.DecodeString(strings.Join(strings.Fields(m[2]), ""))
		if err != nil {
			t.Fatalf("example %s: %v", m[1], err)
		}
		found[m[1]] = b
	}
	for name, want := range specExamples(t) {
		if !bytes.Equal(found[name], want) {
			t.Errorf("example %s is\n%x\nwant\n% x", name, found[name], want)
		}
	}
}

func readSpec(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("SPEC.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
