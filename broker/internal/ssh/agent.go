package ssh

import (
	"bufio"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"golang.org/x/crypto/ssh"

	"torno.internal/protocol"
)

// An Agent answers one client. It is not safe for concurrent use: each connection gets one of its own.
type Agent struct {
	// Keys returns the keys that may be used now.
	Keys func() []Key
	// Seen returns the host at the other end of the open tunnel of this session on which proof was seen, if there is
	// one whose proof nobody has asked for before.
	Seen func(proof Proof) (protocol.Authority, bool)
	// Exchanged returns the open tunnel of this session on which the key exchange of a session id was seen, if there is
	// one whose proof nobody has asked for before.
	Exchanged func(session []byte) (protocol.Authority, Proof, bool)
	// Ask has a person decide on a login whose client has not named its connection, waits for that, and returns what they
	// said.
	Ask func(Use) (said string, err error)
	// Record is called before a signature is made, and can refuse it.
	Record func(Use) error
	// Refused is told why something was not signed.
	Refused func(Refusal)

	bound bound
}

// A Use is a signature that is about to be made.
type Use struct {
	Host protocol.Authority
	User string // who it logs in as
	Key  *Key
	Said string // by a person; empty: nobody was asked
}

// A Refusal is a signature, or a session's word about itself, that was refused.
type Refusal struct {
	Host protocol.Authority // zero where no tunnel was found
	Err  error
}

// bound is what a client has said about its connection.
type bound struct {
	tried   bool // it may say it once
	ok      bool
	host    protocol.Authority
	hostKey []byte
	session []byte // id
	said    string // by a person; empty: nobody was asked
}

// Limits on what a client says.
const (
	maxMessage  = 32 << 10 // bytes
	maxMessages = 1024     // of one connection
)

// Numbers of the agent's messages.
const (
	agentFailure           = 5
	agentSuccess           = 6
	agentListIdentities    = 11
	agentIdentities        = 12
	agentSign              = 13
	agentSigned            = 14
	agentExtension         = 27
	agentExtensionFailure  = 28
	agentExtensionResponse = 29
)

// The extensions that are spoken.
const (
	extensionQuery = "query"
	extensionBind  = "session-bind@openssh.com"
)

// Serve answers requests until the client ends. What is malformed ends it with an error.
func (a *Agent) Serve(rw io.ReadWriter) error {
	r := bufio.NewReaderSize(rw, 4<<10)
	for range maxMessages {
		message, err := readMessage(r)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := rw.Write(appendString(nil, a.answer(message))); err != nil {
			return err
		}
	}
	return errors.New("too many requests on one connection")
}

// readMessage reads one message: its length, its number and what goes with it.
func readMessage(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 || n > maxMessage {
		return nil, fmt.Errorf("message of %d bytes, 1 to %d are wanted", n, maxMessage)
	}
	message := make([]byte, n)
	if _, err := io.ReadFull(r, message); err != nil {
		return nil, io.ErrUnexpectedEOF
	}
	return message, nil
}

// answer returns the answer to one message. What would change the agent, such as adding, removing and locking, is
// refused like everything that it does not know.
func (a *Agent) answer(message []byte) []byte {
	r := reader{b: message[1:]}
	switch message[0] {
	case agentListIdentities:
		if r.done() {
			return a.list()
		}
	case agentSign:
		blob, data, flags := r.str(), r.str(), r.uint32()
		if !r.done() {
			break
		}
		signature, err := a.sign(blob, data, flags)
		if err != nil {
			a.Refused(Refusal{a.bound.host, err})
			break
		}
		return appendString([]byte{agentSigned}, signature)
	case agentExtension:
		switch string(r.str()) {
		case extensionQuery:
			return appendString(appendString(appendString([]byte{agentExtensionResponse}, []byte(extensionQuery)), []byte(extensionQuery)), []byte(extensionBind))
		case extensionBind:
			return a.bind(&r)
		}
		return []byte{agentExtensionFailure}
	}
	return []byte{agentFailure}
}

// list names the keys: all of them, or for a bound connection those that may be used on it.
func (a *Agent) list() []byte {
	var all []byte
	count := uint32(0)
	for _, k := range a.Keys() {
		if a.bound.ok && !k.covers(a.bound.host, a.bound.hostKey) {
			continue
		}
		blob, err := k.public()
		if err != nil {
			continue
		}
		all = appendString(appendString(all, blob), []byte(k.Name))
		count++
	}
	return append(binary.BigEndian.AppendUint32([]byte{agentIdentities}, count), all...)
}

// bind reads what a client says about its connection (PROTOCOL.agent of OpenSSH):
//
//	string host key  string session id  string signature  bool is forwarding
func (a *Agent) bind(r *reader) []byte {
	hostKey, session, signature, forwarding := r.str(), r.str(), r.str(), r.boolean()
	if !r.done() {
		return []byte{agentFailure}
	}
	again := a.bound.tried
	a.bound = bound{tried: true}
	err := errors.New("this connection was bound before: one login, one connection")
	var host protocol.Authority
	if !again {
		host, err = a.check(hostKey, session, signature, forwarding)
	}
	if err != nil {
		a.Refused(Refusal{host, err})
		return []byte{agentFailure}
	}
	a.bound = bound{true, true, host, hostKey, session, ""}
	return []byte{agentSuccess}
}

// check returns the host that a connection leads to.
func (a *Agent) check(hostKey, session, signature []byte, forwarding bool) (protocol.Authority, error) {
	if forwarding {
		return protocol.Authority{}, errors.New("the agent is forwarded to another machine")
	}
	if err := verify(hostKey, session, signature); err != nil {
		return protocol.Authority{}, err
	}
	host, ok := a.Seen(Proof{hostKey, signature})
	if !ok {
		return protocol.Authority{}, errors.New("this key exchange was not seen on an open tunnel of this session, or was used before")
	}
	for _, k := range a.Keys() {
		if k.covers(host, hostKey) {
			return host, nil
		}
	}
	return host, errors.New("the host's key is not the known one")
}

// verify checks the host's signature over the session id. SHA-1 is not enough.
func verify(hostKey, session, signature []byte) error {
	key, err := ssh.ParsePublicKey(hostKey)
	if err != nil {
		return errors.New("the host's key is malformed")
	}
	var s ssh.Signature
	if err := ssh.Unmarshal(signature, &s); err != nil {
		return errors.New("the host's signature is malformed")
	}
	if s.Format == ssh.KeyAlgoRSA || s.Format == "ssh-dss" {
		return errors.New("the host's signature is one of SHA-1")
	}
	if err := key.Verify(session, &s); err != nil {
		return errors.New("the host's signature is wrong")
	}
	return nil
}

// sign signs a login on the bound connection. A client that has not named its connection has to wait for a person.
func (a *Agent) sign(blob, data []byte, flags uint32) ([]byte, error) {
	login, err := parseLogin(data)
	if err != nil {
		return nil, err
	}
	to := &a.bound
	if !to.ok {
		if to, err = a.asked(&login, blob, flags); err != nil {
			return nil, err
		}
	}
	if err := login.checkAgainst(to, blob); err != nil {
		return nil, err
	}
	k, algorithm, err := a.choose(to, &login, blob, flags)
	if err != nil {
		return nil, err
	}
	if err := a.Record(Use{to.host, login.user, k, to.said}); err != nil {
		return nil, err
	}
	return signature(k, algorithm, data)
}

// choose returns the key that a login names, and the algorithm that it is signed by.
func (a *Agent) choose(to *bound, login *login, blob []byte, flags uint32) (*Key, string, error) {
	for _, k := range a.Keys() {
		public, err := k.public()
		if err != nil || string(public) != string(blob) || !k.covers(to.host, to.hostKey) {
			continue
		}
		if k.User != "" && k.User != login.user {
			return nil, "", fmt.Errorf("%s is for user %q, not %q", k.Name, k.User, login.user)
		}
		algorithm, err := algorithmOf(keyType(public), login.algorithm, flags)
		return &k, algorithm, err
	}
	return nil, "", errors.New("no key of this session that may be used there")
}

// asked has a person decide on a login whose client has not named its connection. The session id in it must be one that a host
// has signed on an open tunnel of this session, so that no word of a person's lets somebody log in from elsewhere; who cannot
// tell which connection it is, is the client.
func (a *Agent) asked(login *login, blob []byte, flags uint32) (*bound, error) {
	if a.bound.tried {
		return nil, errors.New("the client named another connection than it logs in on")
	}
	host, proof, ok := a.Exchanged(login.session)
	if !ok {
		return nil, errors.New("the client has not named its connection (session-bind@openssh.com), and its key exchange was not seen on an open tunnel of this session, or was used before")
	}
	to := &bound{ok: true, host: host, hostKey: proof.HostKey, session: login.session}
	if err := login.checkAgainst(to, blob); err != nil {
		return nil, err
	}
	k, _, err := a.choose(to, login, blob, flags)
	if err != nil {
		return nil, err
	}
	if to.said, err = a.Ask(Use{host, login.user, k, ""}); err != nil {
		return nil, err
	}
	if again, ok := a.Seen(proof); !ok || again != host { // the tunnel may be closed by now
		return nil, errors.New("the connection has ended while a person was asked")
	}
	return to, nil
}

// keyType returns the type that a public key in wire format begins with.
func keyType(blob []byte) string {
	r := reader{b: blob}
	return string(r.str())
}

func signature(k *Key, algorithm string, data []byte) (signature []byte, err error) {
	err = k.use(func(s ssh.AlgorithmSigner) error {
		made, err := s.SignWithAlgorithm(rand.Reader, data, algorithm)
		if err != nil {
			return errors.New("signing did not work") // the cause is about a key
		}
		signature = ssh.Marshal(made)
		return nil
	})
	return signature, err
}
