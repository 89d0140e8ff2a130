package broker

import (
	"torno.internal/broker/internal/keyring"
	"torno.internal/protocol/secret"
)

// A KeyConfig says what opens the key file, where it is protected. The zero value opens one that is not.
type KeyConfig struct {
	Passphrase func() (secret.Value, error) // asked once; nil: nobody can be asked
	Credential string                       // name of a credential that systemd hands to this service
	Command    []string                     // what prints the secret; the first an absolute path
}

func (c *KeyConfig) holders() []keyring.Holder {
	var hs []keyring.Holder
	if c.Passphrase != nil {
		hs = append(hs, keyring.Passphrase(c.Passphrase))
	}
	if c.Credential != "" {
		hs = append(hs, keyring.Credential{Name: c.Credential})
	}
	if len(c.Command) > 0 {
		hs = append(hs, keyring.Command{Argv: c.Command})
	}
	return hs
}
