package session

import "errors"

// Errors that callers match. None of them crosses to the guest as text.
var (
	ErrEnded     = errors.New("the session has ended")
	ErrHelloUsed = errors.New("hello was answered and its token has been used")
	ErrNonce     = errors.New("hello with another nonce than the first")
	ErrBoot      = errors.New("hello without the machine's boot nonce")
	ErrToken     = errors.New("not this session's token")
)
