package plugin

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// The errors that a plugin's errors may match. The operator is told which, and nothing else.
var (
	ErrNotFound    = errors.New("there is no such secret or key")
	ErrDenied      = errors.New("access is denied") // by where the secret or key is kept
	ErrInvalid     = errors.New("that makes no sense to the plugin")
	ErrUnavailable = errors.New("where it is kept does not answer")
)

// codeTable says how errors travel.
var codeTable = []struct {
	err  error
	code codes.Code
}{
	{ErrNotFound, codes.NotFound},
	{ErrDenied, codes.PermissionDenied},
	{ErrInvalid, codes.InvalidArgument},
	{ErrUnavailable, codes.Unavailable},
	{context.DeadlineExceeded, codes.DeadlineExceeded},
	{context.Canceled, codes.Canceled},
}

// toStatus returns err as it travels: without a word, for it may quote a secret.
func toStatus(err error) error {
	for _, row := range codeTable {
		if errors.Is(err, row.err) {
			return status.Error(row.code, "")
		}
	}
	return status.Error(codes.Unknown, "")
}

// A CallError says that a call of a plugin failed. It quotes nothing of what the plugin wrote.
type CallError struct {
	Call string     // Fetch, Sign, …
	Code codes.Code // as gRPC has it
	Err  error      // one of this package's, or of package context's, or nil
}

func (e *CallError) Error() string {
	switch {
	case e.Err != nil:
		return e.Call + ": " + e.Err.Error()
	case e.Code == codes.Unknown:
		return e.Call + ": the plugin failed, and does not say in which way"
	}
	return e.Call + ": " + e.Code.String()
}

func (e *CallError) Unwrap() error { return e.Err }

// fromStatus returns the error of a call, without what the plugin wrote beside its code.
func fromStatus(call string, err error) error {
	code := status.Code(err)
	for _, row := range codeTable {
		if code == row.code {
			return &CallError{call, code, row.err}
		}
	}
	return &CallError{call, code, nil}
}
