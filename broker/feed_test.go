package broker

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"torno.internal/broker/internal/feed"
	"torno.internal/protocol/control"
)

// subscribe returns the lines of an event stream that has begun.
func (d *desk) subscribe(query string) *bufio.Scanner {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	d.t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, "GET", "http://torno"+control.PathEvents+query, nil)
	d.must(err)
	resp, err := d.client.Do(req)
	d.must(err)
	d.t.Cleanup(func() { resp.Body.Close() })
	lines := bufio.NewScanner(resp.Body)
	if e := nextEvent(d.t, lines); e.Type != control.EventOpened {
		d.t.Fatalf("first line: %+v", e)
	}
	return lines
}

func nextEvent(t testing.TB, lines *bufio.Scanner) (e control.Event) {
	t.Helper()
	if !lines.Scan() {
		t.Fatalf("the stream ended: %v", lines.Err())
	}
	if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
		t.Fatal(err)
	}
	return e
}

// A subscriber hears of sessions, secrets, approvals and exchanges, each as it happens.
func TestEvents(t *testing.T) {
	a := newAskDesk(t, control.Limits{}, asksForPosts)
	all, approvals := a.subscribe(""), a.subscribe("?kind=approval&kind=secret&agent=a")
	_, done := a.send(post("/v1/x?token=s3cret"), "1234")
	a.must(a.decide(a.waiting(1)[0].ID, true, false))
	if r := <-done; r.resp.Status != 200 {
		t.Fatalf("%d, %v", r.resp.Status, r.err)
	}
	a.must(a.call("DELETE", control.PathSecrets+"?agent=a&name=KEY", nil, nil))
	a.must(a.call("DELETE", control.PathSession+a.session.ID, nil, nil))
	var types []string
	for len(types) == 0 || types[len(types)-1] != "session_revoked" {
		e := nextEvent(t, all)
		types = append(types, e.Type)
		if strings.Contains(all.Text(), "s3cret") || strings.Contains(all.Text(), testKey) {
			t.Errorf("an event has a credential: %s", all.Text())
		}
		switch e.Type {
		case "approval_ended":
			if !strings.HasPrefix(e.By, "uid ") || e.Reason != "allowed" || e.Approval.Path != "/v1/x?token=***" {
				t.Errorf("%s", all.Text())
			}
		case "exchange_ended":
			if e.Exchange.Status != 200 || e.Exchange.Up != 4 || e.Secret != "KEY" || e.Version != 1 || e.Exchange.Authority != "example.com:443" {
				t.Errorf("%s", all.Text())
			}
		case "session_revoked":
			if e.Session != a.session.ID || e.Agent != "a" || e.Kind != control.EventSession {
				t.Errorf("%s", all.Text())
			}
		}
	}
	for _, want := range []string{"approval_waiting", "approval_ended", "exchange_ended", "secret_deleted", "session_revoked"} {
		if !slices.Contains(types, want) {
			t.Errorf("no %s in %q", want, types)
		}
	}
	for _, want := range []string{"approval_waiting", "approval_ended", "secret_deleted"} {
		if e := nextEvent(t, approvals); e.Type != want {
			t.Errorf("%q, want %q", e.Type, want)
		}
	}
}

// Who reads nothing is cut, and finds that as the last line when reading on. The broker waits for nobody meanwhile.
func TestEventsSlowReader(t *testing.T) {
	d := newDesk(t, nil)
	c, err := net.Dial("unix", filepath.Join(d.cfg.RuntimeDir, control.SocketName))
	d.must(err)
	defer c.Close()
	_, err = io.WriteString(c, "GET "+control.PathEvents+"?kind=broker HTTP/1.1\r\nHost: torno\r\nConnection: close\r\n\r\n")
	d.must(err)
	first := make([]byte, 1)
	_, err = io.ReadFull(c, first)
	d.must(err)
	for d.broker.feed.Idle() {
		time.Sleep(10 * time.Millisecond)
	}
	published := 0
	for ; !d.broker.feed.Idle() && published < 1<<20; published++ {
		d.broker.feed.Publish(control.Event{Kind: control.EventBroker, Type: "test", Reason: strings.Repeat("x", 1000)})
	}
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
	all, err := io.ReadAll(io.LimitReader(c, 64<<20))
	got := strings.Count(string(all), `"type":"test"`)
	if !strings.Contains(string(all), `"type":"stream_cut"`) || got >= published {
		t.Errorf("%d of %d events, %v, and no word that it was cut", got, published, err)
	}
	t.Logf("cut after %d events, of which %d arrived", published, got)
}

func TestEventsRefused(t *testing.T) {
	d := newDesk(t, nil)
	if err := d.call("GET", control.PathEvents+"?kind=nonsense", nil, nil); err == nil || err.(*control.Error).Code != control.CodeInvalid {
		t.Errorf("unknown kind: %v", err)
	}
	for range feed.MaxSubscribers {
		d.subscribe("")
	}
	if err := d.call("GET", control.PathEvents, nil, nil); err == nil || err.(*control.Error).Code != control.CodeBusy {
		t.Errorf("one more: %v", err)
	}
}
