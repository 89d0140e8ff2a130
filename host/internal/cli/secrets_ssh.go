package cli

import (
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// wellKnown are host keys that their owners publish.
var wellKnown = map[string]string{
	"github.com": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl",
	"gitlab.com": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAfuCHKVTjquxvt6CM6tdG4SLp1Btn/nOeHHE5UOzRdf",
}

// pinHosts adds the host keys of an SSH key's hosts to what is sealed with it, where --as did not name them: those of the
// file, or else well-known ones.
func (e *entry) pinHosts(file string) error {
	in := &e.meta.Inject
	if in.Scheme != control.SchemeSSH || in.Param(control.ParamKnownHosts) != "" {
		return nil
	}
	hosts, err := e.meta.Authorities()
	if err != nil {
		return err
	}
	known, err := readKnownHosts(file)
	if err != nil {
		return err
	}
	var lines []string
	for _, a := range hosts {
		line, ok := known(a)
		if !ok {
			scan := "ssh-keyscan -t ed25519 -p " + strconv.Itoa(int(a.Port)) + " " + a.Host
			return &hintError{fmt.Errorf("no host key of %s is known", a),
				"connect once with ssh and check the key, or: " + scan + " >known, look at it, and --known-hosts known"}
		}
		lines = append(lines, line)
	}
	in.SetParam(control.ParamKnownHosts, strings.Join(lines, ","))
	return nil
}

// readKnownHosts returns what finds a host's line of known_hosts. file is the person's own unless it is named.
func readKnownHosts(file string) (func(protocol.Authority) (string, bool), error) {
	named := file != ""
	if !named {
		home, err := os.UserHomeDir()
		if err != nil {
			return nil, err
		}
		file = filepath.Join(home, ".ssh", "known_hosts")
	}
	check, err := knownhosts.New(file)
	if err != nil && (named || !errors.Is(err, os.ErrNotExist)) {
		return nil, fmt.Errorf("known hosts: %w", err)
	}
	return func(a protocol.Authority) (string, bool) {
		name := knownhosts.Normalize(net.JoinHostPort(a.Host, strconv.Itoa(int(a.Port))))
		if check != nil {
			if key := bestKey(check, a); key != nil {
				return name + " " + key.Type() + " " + base64.StdEncoding.EncodeToString(key.Marshal()), true
			}
		}
		key, ok := wellKnown[name]
		return name + " " + key, ok && !named
	}, nil
}

// bestKey returns the key of a that check knows, or nil: of several the one that is best to be asked for.
func bestKey(check ssh.HostKeyCallback, a protocol.Authority) ssh.PublicKey {
	var unknown *knownhosts.KeyError
	err := check(net.JoinHostPort(a.Host, strconv.Itoa(int(a.Port))), &net.TCPAddr{}, noKey{})
	if !errors.As(err, &unknown) {
		return nil
	}
	for _, want := range []string{ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoRSA} {
		for _, k := range unknown.Want {
			if k.Key.Type() == want {
				return k.Key
			}
		}
	}
	return nil
}

// noKey is no host's key, so that asking about it brings out those that are.
type noKey struct{}

func (noKey) Type() string                        { return "none" }
func (noKey) Marshal() []byte                     { return []byte("none") }
func (noKey) Verify([]byte, *ssh.Signature) error { return errors.New("no key") }

// unlock takes the passphrase off a private key, asking for it: what is sealed is opened by the broker alone.
func (e *entry) unlock(cmd *cobra.Command) error {
	if e.meta.Inject.Scheme != control.SchemeSSH || e.source == sourcePlugin {
		return nil
	}
	locked := false
	_ = e.value.Use(func(b []byte) error {
		_, err := ssh.ParseRawPrivateKey(b)
		var missing *ssh.PassphraseMissingError
		locked = errors.As(err, &missing)
		return nil
	})
	if !locked {
		return nil
	}
	if !isTerminal(os.Stdin) {
		return &hintError{errors.New("the key has a passphrase, and there is no terminal to ask for it on"), "ssh-keygen -p takes it off a copy"}
	}
	passphrase, err := readLine(cmd, "Passphrase of "+e.key+" (not shown): ", false)
	if err != nil {
		return err
	}
	defer passphrase.Wipe()
	opened, err := openKey(e.value, passphrase)
	if err != nil {
		return err
	}
	e.value.Wipe()
	e.value = opened
	return nil
}

// openKey returns the private key that value is under passphrase.
func openKey(value, passphrase secret.Value) (opened secret.Value, err error) {
	err = value.Use(func(b []byte) error {
		return passphrase.Use(func(p []byte) error {
			key, err := ssh.ParseRawPrivateKeyWithPassphrase(b, p)
			if err != nil {
				return errors.New("that is not the key's passphrase")
			}
			block, err := ssh.MarshalPrivateKey(key, "")
			if err != nil {
				return errors.New("the key is of a type that is not known")
			}
			opened = secret.New(pem.EncodeToMemory(block))
			secret.Wipe(block.Bytes)
			return nil
		})
	})
	return opened, err
}
