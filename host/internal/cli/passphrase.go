package cli

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"torno.internal/broker"
	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// passphraseCredential is the credential of systemd that holds the passphrase, where there is one.
const passphraseCredential = "torno-passphrase"

// passphraseQuestion is asked on a terminal.
const passphraseQuestion = "Passphrase of torno's key (not shown): "

// readPassphrase returns what gives the passphrase of the key file: the descriptor fd, unless it is
// negative; the credential of systemd; a person at the terminal.
func readPassphrase(cmd *cobra.Command, fd int) func() (secret.Value, error) {
	return func() (secret.Value, error) {
		if fd >= 0 {
			f := os.NewFile(uintptr(fd), "passphrase")
			if f == nil {
				return secret.Value{}, usageError{fmt.Errorf("--passphrase-fd %d: no such descriptor", fd)}
			}
			defer f.Close()
			return broker.ReadSecret(f)
		}
		if s, ok, err := broker.SystemdCredential(passphraseCredential); ok || err != nil {
			return s, err
		}
		if isTerminal(os.Stdin) {
			return readLine(cmd, passphraseQuestion, false)
		}
		return secret.Value{}, &hintError{broker.ErrLocked,
			"run torno serve on a terminal, or with --passphrase-fd, or give it the credential " + passphraseCredential + " (docs/operating.md)"}
	}
}

// mustWait reports whether a passphrase protects the key and nobody is there to give it.
func mustWait(stateDir string) bool {
	protected, err := broker.KeyProtection(stateDir)
	if err != nil || protected != broker.ProtectedByPassphrase || isTerminal(os.Stdin) {
		return false
	}
	s, ok, err := broker.SystemdCredential(passphraseCredential)
	s.Wipe()
	return !ok && err == nil
}

// newPassphrase asks for a passphrase that will protect the key: twice on a terminal, else a line of input.
func newPassphrase(cmd *cobra.Command) (secret.Value, error) {
	if isTerminal(os.Stdin) {
		return promptTwice(cmd, "New passphrase")
	}
	return readInputLine(cmd.InOrStdin())
}

// currentPassphrase asks for the passphrase that protects the key now.
func currentPassphrase(cmd *cobra.Command) (secret.Value, error) {
	if isTerminal(os.Stdin) {
		return readLine(cmd, passphraseQuestion, false)
	}
	return readInputLine(cmd.InOrStdin())
}

// readInputLine reads one line and not a byte more: the next may be another's.
func readInputLine(r io.Reader) (secret.Value, error) {
	var l line
	for one := make([]byte, 1); ; {
		n, err := r.Read(one)
		if n == 1 && one[0] == '\n' || errors.Is(err, io.EOF) && len(l.text) > 0 {
			return secret.New(l.text), nil
		}
		if err != nil {
			l.wipe()
			return secret.Value{}, &hintError{errors.New("no passphrase on standard input"), "one line each: the current one first, where there is one"}
		}
		if n == 1 {
			if len(l.text) == control.MaxValue {
				l.wipe()
				return secret.Value{}, errors.New("a passphrase without an end")
			}
			l.grow()
			l.text = append(l.text, one[0])
		}
	}
}
