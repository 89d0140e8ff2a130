package feed

import (
	"errors"
	"testing"

	"torno.internal/protocol/control"
)

func TestFeed(t *testing.T) {
	var f Feed
	f.Publish(control.Event{Type: "before"})
	all, err := f.Subscribe(nil)
	if err != nil {
		t.Fatal(err)
	}
	some, err := f.Subscribe(func(e *control.Event) bool { return e.Kind == "x" })
	if err != nil {
		t.Fatal(err)
	}
	f.Publish(control.Event{Kind: "y"})
	f.Publish(control.Event{Kind: "x"})
	some.Close()
	f.Publish(control.Event{Kind: "x"})
	for want := range uint64(3) {
		if e := <-all.Events(); e.Seq != want+2 || e.Time.IsZero() {
			t.Errorf("%+v, want number %d", e, want+2)
		}
	}
	if e := <-some.Events(); e.Seq != 3 || len(some.Events()) != 0 {
		t.Errorf("%+v, and %d more", e, len(some.Events()))
	}
}

// Who does not read is cut off after 256 events, gets these and then the end; the others miss nothing.
func TestSlowSubscriber(t *testing.T) {
	var f Feed
	slow, err := f.Subscribe(nil)
	if err != nil {
		t.Fatal(err)
	}
	quick, err := f.Subscribe(nil)
	if err != nil {
		t.Fatal(err)
	}
	for n := range uint64(1000) {
		f.Publish(control.Event{})
		if e := <-quick.Events(); e.Seq != n+1 {
			t.Fatalf("%+v, want number %d", e, n+1)
		}
	}
	got := 0
	for range slow.Events() {
		got++
	}
	if got != Buffer {
		t.Errorf("%d events, want %d", got, Buffer)
	}
	slow.Close() // once more changes nothing
	quick.Close()
	if !f.Idle() {
		t.Error("somebody is left")
	}
}

func TestSubscribers(t *testing.T) {
	var f Feed
	var last *Subscription
	for range MaxSubscribers {
		var err error
		if last, err = f.Subscribe(nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.Subscribe(nil); !errors.Is(err, ErrFull) {
		t.Errorf("one more: %v", err)
	}
	last.Close()
	if _, err := f.Subscribe(nil); err != nil {
		t.Errorf("after one has gone: %v", err)
	}
}
