package pluginhost

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"

	"torno.internal/broker/plugin"
)

// A Code says in which way a plugin failed. The table is closed: beside it nothing that a plugin wrote goes into a log
// or into the audit.
type Code string

// The codes.
const (
	CodeUnknown     Code = "unknown"       // there is no plugin of that name
	CodeMissing     Code = "missing"       // its program is not there, or can't be read
	CodeChanged     Code = "changed"       // its program is not the one that was declared
	CodeNotStarted  Code = "not_started"   // it could not be started, confined as it has to be
	CodeNotAPlugin  Code = "not_a_plugin"  // its program does not begin as plugins do
	CodeVersion     Code = "wrong_version" // it speaks another version of the protocol
	CodeKind        Code = "wrong_kind"    // it is no source, or no signer
	CodeConfig      Code = "configuration" // it does not take its configuration, or a file of it can't be read
	CodeCrashed     Code = "crashed"       // its process ended
	CodeTimeout     Code = "timeout"       // it did not answer in time
	CodeHung        Code = "hung"          // it answers nothing any more, and was killed
	CodeFlooded     Code = "flooded"       // it wrote more than any plugin has to say, and was killed
	CodeBusy        Code = "busy"          // too many calls at once
	CodeAnswer      Code = "bad_answer"    // what it answered is malformed, or too long
	CodeNotFound    Code = "not_found"     // it says that there is no such secret or key
	CodeDenied      Code = "denied"        // it says that where the secret is kept access is denied
	CodeInvalid     Code = "invalid"       // it makes no sense of the reference, or of the algorithm
	CodeUnavailable Code = "unavailable"   // it says that where the secret is kept nobody answers
	CodeFailed      Code = "failed"        // it says that it failed, and not in which way
	CodeEnding      Code = "ending"        // the broker is
)

// codeTexts say it to people.
var codeTexts = map[Code]string{
	CodeUnknown:     "there is no plugin of that name",
	CodeMissing:     "its program can't be read",
	CodeChanged:     "its program is not the one whose SHA-256 was declared",
	CodeNotStarted:  "it could not be started",
	CodeNotAPlugin:  "its program does not begin as a plugin of torno does",
	CodeVersion:     "it speaks another version of the protocol",
	CodeKind:        "it is not of the kind that was declared",
	CodeConfig:      "it does not take its configuration",
	CodeCrashed:     "its process ended",
	CodeTimeout:     "it did not answer in time",
	CodeHung:        "it answered nothing any more",
	CodeFlooded:     "it wrote more than it has to say",
	CodeBusy:        "too many calls of it are under way",
	CodeAnswer:      "its answer is malformed, or too long",
	CodeNotFound:    "it knows no such secret or key",
	CodeDenied:      "where the secret or key is kept, access is denied",
	CodeInvalid:     "the reference, or the algorithm, makes no sense to it",
	CodeUnavailable: "where the secret or key is kept, nobody answers",
	CodeFailed:      "it failed, and does not say in which way",
	CodeEnding:      "the broker is ending",
}

// An Error says how a plugin failed. Nothing in it was written by the plugin.
type Error struct {
	Plugin string
	Code   Code
	Detail string // may be empty
	Hint   string // may be empty
}

func (e *Error) Error() string {
	text := fmt.Sprintf("plugin %s: %s", e.Plugin, codeTexts[e.Code])
	if e.Detail != "" {
		text += " (" + e.Detail + ")"
	}
	return text
}

// Final reports whether the plugin has said that the secret or key is not to be had: asking again soon is no use.
func (e *Error) Final() bool {
	return e.Code == CodeNotFound || e.Code == CodeDenied || e.Code == CodeInvalid
}

// callCodes are the codes of errors that a plugin returns.
var callCodes = []struct {
	err  error
	code Code
}{
	{plugin.ErrNotFound, CodeNotFound},
	{plugin.ErrDenied, CodeDenied},
	{plugin.ErrInvalid, CodeInvalid},
	{plugin.ErrUnavailable, CodeUnavailable},
	{context.DeadlineExceeded, CodeTimeout},
}

// codeOf returns the code of a call's error.
func codeOf(err error) Code {
	for _, row := range callCodes {
		if errors.Is(err, row.err) {
			return row.code
		}
	}
	var call *plugin.CallError
	switch {
	case !errors.As(err, &call): // it came, and was wrong
		return CodeAnswer
	case call.Code == codes.ResourceExhausted: // longer than the limit
		return CodeAnswer
	}
	return CodeFailed
}
