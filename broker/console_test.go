package broker

import (
	"errors"
	"strings"
	"testing"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// What a VM said last is shown with its session, also when that has ended and by another broker.
func TestConsole(t *testing.T) {
	d := newDesk(t, nil)
	machine := control.Machine{Kind: "q35", Accel: "tcg", Image: "base", Kernel: "6.1", Memory: 1 << 30, CPUs: 2}
	req := control.SessionRequest{Agent: "my-agent", Isolation: protocol.IsolationMicroVM, Workload: protocol.Workload{Argv: []string{"true"}}, Machine: &machine}
	var created control.SessionCreated
	d.must(d.call("POST", control.PathSessions, req, &created))
	report := func(session, text string) error {
		return d.call("POST", control.PathConsole, control.ConsoleReport{Session: session, Text: text}, nil)
	}
	d.must(report(created.ID, "first"))
	d.must(report(created.ID, "\x1b[31mlast"))
	var e *control.Error
	if err := report("nonsense", "x"); !errors.As(err, &e) || e.Code != control.CodeNotFound {
		t.Errorf("of no session: %v", err)
	}
	if err := report(created.ID, strings.Repeat("x", control.MaxConsole+1)); !errors.As(err, &e) || e.Code != control.CodeInvalid {
		t.Errorf("a byte too many: %v", err)
	}
	d.must(d.call("POST", control.PathSession+created.ID+"/end", nil, nil))
	d.stop()
	d.start()
	var info control.SessionInfo
	d.must(d.call("GET", control.PathSession+created.ID, nil, &info))
	if info.Console != "\x1b[31mlast" || info.Machine == nil || *info.Machine != machine || info.State != "ended" {
		t.Errorf("%+v", info)
	}
}
