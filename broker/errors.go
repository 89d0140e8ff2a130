package broker

import (
	"errors"

	"torno.internal/broker/internal/keyring"
	"torno.internal/broker/internal/store"
)

// Errors that callers match.
var (
	ErrLocked = keyring.ErrLocked // a passphrase protects the key file, and none was given
	ErrWrong  = keyring.ErrWrong  // what was given does not open the key file
	ErrExists = store.ErrExists   // something would be replaced that only force replaces
)

// BusyPID returns the process that has the state directory open, if that is what err says; 0: not, or unknown.
func BusyPID(err error) int {
	var busy *store.BusyError
	if errors.As(err, &busy) {
		return busy.PID
	}
	return 0
}

// Hint returns what a person can do about err, or nothing.
func Hint(err error) string {
	var dir *store.DirError
	switch {
	case errors.As(err, &dir):
		return dir.Hint
	case errors.Is(err, keyring.ErrNoKey):
		return "torno key recover puts the key together from shares; a backup of the file \"key\" does too"
	case errors.Is(err, store.ErrDamaged):
		return store.DamagedHint
	case errors.Is(err, store.ErrTampered):
		return "torno store restore brings a backup back"
	}
	return ""
}
