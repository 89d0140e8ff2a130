package pluginhost

import (
	"context"
	"errors"

	"torno.internal/broker/plugin"
)

// Fetch returns the newest version of a secret that a source has. Errors are *Error.
func (h *Host) Fetch(ctx context.Context, name, ref string) (sec plugin.Secret, err error) {
	err = h.call(ctx, name, func(ctx context.Context, in *instance) (err error) {
		sec, err = in.Fetch(ctx, ref)
		return err
	})
	return sec, err
}

// Sign returns a signature that a signer made. Errors are *Error.
func (h *Host) Sign(ctx context.Context, name string, r plugin.SignRequest) (signature []byte, err error) {
	err = h.call(ctx, name, func(ctx context.Context, in *instance) (err error) {
		signature, err = in.Sign(ctx, r)
		return err
	})
	return signature, err
}

// Watch calls changed each time that a source says that a secret may have changed, until ctx ends or the plugin does.
// It returns watches as false, at once, where the source does not tell of changes.
func (h *Host) Watch(ctx context.Context, name, ref string, changed func()) (watches bool, err error) {
	s := h.plugins[name]
	if s == nil {
		return false, &Error{Plugin: name, Code: CodeUnknown}
	}
	in, err := s.get(ctx)
	if err != nil {
		return false, err
	}
	if !in.watches {
		return false, nil
	}
	s.mu.Lock()
	s.watching++
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.watching--
		s.mu.Unlock()
	}()
	err = in.Watch(ctx, ref, changed)
	if ctx.Err() != nil {
		return true, ctx.Err()
	}
	return true, in.explain(s, err)
}

// call makes one call of a plugin, within its limits.
func (h *Host) call(ctx context.Context, name string, f func(context.Context, *instance) error) error {
	s := h.plugins[name]
	if s == nil {
		return &Error{Plugin: name, Code: CodeUnknown, Hint: "torno plugin list shows those that broker.toml declares"}
	}
	s.calls.Add(1)
	ctx, cancel := context.WithTimeout(ctx, startTimeout+s.timeout())
	defer cancel()
	select {
	case s.room <- struct{}{}:
		defer func() { <-s.room }()
	case <-ctx.Done():
		return s.failedCall(s.fail(CodeBusy, "", ""))
	}
	in, err := s.get(ctx)
	if err != nil {
		return err // which was noted
	}
	ctx, cancel = context.WithTimeout(ctx, s.timeout())
	defer cancel()
	if err = f(ctx, in); err == nil {
		s.answered()
		return nil
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return s.fail(CodeTimeout, "nobody waits for it any more", "")
	}
	e := in.explain(s, err)
	if e.Code == CodeTimeout {
		s.suspect(in)
	}
	return s.failedCall(e)
}

// answered notes that the plugin works.
func (s *supervisor) answered() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.backOff = 0
}

func (s *supervisor) failedCall(e *Error) *Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note(e)
	return e
}

// codeIs reports whether err is an *Error with that code.
func codeIs(err error, code Code) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == code
}
