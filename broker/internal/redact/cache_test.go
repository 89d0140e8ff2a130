package redact

import (
	"bytes"
	"testing"
)

// TestCacheMakesOneWhileOthersWait makes a Matcher while another is being made, and one for two.
func TestCacheMakesOneWhileOthersWait(t *testing.T) {
	var c Cache
	other := make(chan struct{})
	done := make(chan *Matcher)
	made := 0
	for range 2 {
		go func() {
			done <- c.Get("slow", func() []Secret { made++; <-other; return []Secret{newSecret(token)} })
		}()
	}
	c.Get("other", func() []Secret { return nil })
	close(other)
	a, b := <-done, <-done
	if a != b || a.Empty() || made != 1 {
		t.Errorf("%p and %p, %d made", a, b, made)
	}
	c.Put("slow")
	if len(bytes.Trim(b.texts, "\x00")) == 0 {
		t.Error("wiped while in use")
	}
	c.Put("slow")
	if len(bytes.Trim(b.texts, "\x00")) > 0 {
		t.Error("not wiped when nobody uses it")
	}
	c.Put("other")
	if len(c.matchers) != 0 {
		t.Errorf("%d left", len(c.matchers))
	}
}
