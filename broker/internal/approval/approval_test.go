package approval

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"torno.internal/protocol/control"
)

// waiting enters a request of a session and waits for it.
func waiting(t *testing.T, ctx context.Context, d *Desk, session string) (id string, answer <-chan Answer) {
	t.Helper()
	ticket, err := d.Enter(control.Approval{Session: session})
	if err != nil {
		t.Fatal(err)
	}
	c := make(chan Answer, 1)
	go func() { c <- ticket.Wait(ctx) }()
	return ticket.Shown().ID, c
}

func TestDecide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New(Options{})
		for _, want := range []Answer{{Allowed, "me", false}, {Allowed, "me", true}, {Denied, "you", false}} {
			id, answer := waiting(t, t.Context(), d, "s")
			if list := d.List(); len(list) != 1 || list[0].ID != id || list[0].Expires.Sub(list[0].Asked) != 5*time.Minute {
				t.Errorf("list: %+v", list)
			}
			if a, err := d.Decide(id, want); err != nil || a.ID != id {
				t.Errorf("%+v, %v", a, err)
			}
			if got := <-answer; got != want {
				t.Errorf("%+v, want %+v", got, want)
			}
			if _, err := d.Decide(id, want); !errors.Is(err, ErrUnknown) {
				t.Errorf("decided twice: %v", err)
			}
			if _, err := d.Get(id); !errors.Is(err, ErrUnknown) {
				t.Errorf("still there: %v", err)
			}
		}
	})
}

// Who says nothing denies, after five minutes to the millisecond.
func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New(Options{})
		began := time.Now()
		_, answer := waiting(t, t.Context(), d, "s")
		if got := <-answer; got != (Answer{Verdict: TimedOut}) || time.Since(began) != 5*time.Minute {
			t.Errorf("%+v after %v", got, time.Since(began))
		}
		if list := d.List(); len(list) > 0 {
			t.Errorf("still waiting: %+v", list)
		}
	})
}

// The bounds hold, and a guest that goes away frees its place.
func TestBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New(Options{PerSession: 2, Total: 3})
		ctx, cancel := context.WithCancel(t.Context())
		_, first := waiting(t, ctx, d, "a")
		waiting(t, t.Context(), d, "a")
		if _, err := d.Enter(control.Approval{Session: "a"}); !errors.Is(err, ErrFull) {
			t.Errorf("third of a session: %v", err)
		}
		waiting(t, t.Context(), d, "b")
		if _, err := d.Enter(control.Approval{Session: "c"}); !errors.Is(err, ErrFull) {
			t.Errorf("fourth of all: %v", err)
		}
		cancel()
		if got := <-first; got.Verdict != Gone {
			t.Errorf("%+v", got)
		}
		waiting(t, t.Context(), d, "a")
		time.Sleep(DefaultTimeout)
		synctest.Wait()
		if len(d.waiting)+len(d.count) != 0 {
			t.Errorf("left behind: %v, %v", d.waiting, d.count)
		}
	})
}

// A decision and the end of time at once: exactly one of them counts, and both sides agree which.
func TestDecideAtTheLastMoment(t *testing.T) {
	d := New(Options{Timeout: time.Millisecond})
	said, ended := 0, 0
	for range 500 {
		id, answer := waiting(t, t.Context(), d, "s")
		time.Sleep(900 * time.Microsecond)
		_, err := d.Decide(id, Answer{Verdict: Allowed})
		got := <-answer
		if (err == nil) != (got.Verdict == Allowed) {
			t.Fatalf("%v, and %+v", err, got)
		}
		if err == nil {
			said++
		} else {
			ended++
		}
	}
	t.Logf("%d said in time, %d not", said, ended)
}
