package keyring

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"torno.internal/protocol/secret"
)

// maxSecret bounds what a holder gives, in bytes.
const maxSecret = 4 << 10

// MinPassphrase is the length in bytes of the shortest passphrase that is taken.
const MinPassphrase = 12

// Passphrase is a Holder whose secret a person knows. The function is asked once, when it is needed.
type Passphrase func() (secret.Value, error)

// Kind implements Holder.
func (Passphrase) Kind() Kind { return KindPassphrase }

// Secret implements Holder.
func (p Passphrase) Secret() (secret.Value, error) {
	s, err := p()
	if err == nil && s.Len() > maxSecret {
		s.Wipe()
		return secret.Value{}, fmt.Errorf("passphrase of more than %d bytes", maxSecret)
	}
	return s, err
}

// CheckPassphrase reports what makes a new passphrase unusable.
func CheckPassphrase(s secret.Value) error {
	if s.Len() < MinPassphrase {
		return fmt.Errorf("the passphrase has %d bytes, at least %d are needed", s.Len(), MinPassphrase)
	}
	return nil
}

// Credential is a Holder whose secret is a file that systemd puts into the service's own directory
// (systemd.exec(5), LoadCredentialEncrypted=): it may be sealed to the machine's TPM.
type Credential struct{ Name string }

// Kind implements Holder.
func (Credential) Kind() Kind { return KindCredential }

// Secret implements Holder.
func (c Credential) Secret() (secret.Value, error) {
	s, ok, err := SystemdCredential(c.Name)
	if err == nil && !ok {
		err = fmt.Errorf("systemd has given no credential %q (LoadCredentialEncrypted= in the unit)", c.Name)
	}
	return s, err
}

// SystemdCredential returns the credential name of the service that this process is part of; ok is false if
// there is none.
func SystemdCredential(name string) (s secret.Value, ok bool, err error) {
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	if dir == "" {
		return secret.Value{}, false, nil
	}
	if !filepath.IsLocal(name) || filepath.Base(name) != name {
		return secret.Value{}, false, fmt.Errorf("%q is not a credential's name", name)
	}
	f, err := os.Open(filepath.Join(dir, name))
	if errors.Is(err, os.ErrNotExist) {
		return secret.Value{}, false, nil
	}
	if err != nil {
		return secret.Value{}, false, err
	}
	defer f.Close()
	s, err = ReadSecret(f)
	return s, err == nil, err
}

// ReadSecret reads a passphrase or another holder's secret to the end of r, without a final newline.
func ReadSecret(r io.Reader) (secret.Value, error) {
	b := make([]byte, maxSecret+3)
	n, err := io.ReadFull(r, b)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		secret.Wipe(b)
		return secret.Value{}, err
	}
	b = bytes.TrimSuffix(bytes.TrimSuffix(b[:n], []byte("\n")), []byte("\r"))
	if len(b) > maxSecret || len(b) == 0 {
		secret.Wipe(b)
		return secret.Value{}, fmt.Errorf("a secret of 1 to %d bytes is wanted", maxSecret)
	}
	return secret.New(b), nil
}
