package postgres

import (
	"bytes"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"strconv"
	"strings"

	"torno.internal/protocol/secret"
)

// Bounds on how often the server may have the password hashed: fewer times are too cheap for who guesses (RFC 7677 §4),
// and more would keep a core of ours busy.
const (
	minIterations = 4096
	maxIterations = 1 << 18
)

const maxSalt = 1 << 10 // bytes

// A scram is one exchange of SCRAM-SHA-256 (RFC 5802, RFC 7677), as the client.
type scram struct {
	mechanism string
	header    string // what is said of channel binding
	binding   []byte // to the channel; empty: none
	nonce     string
	bare      string // the first message, without header
	signature []byte // of the server, as it must be
	answered  bool
	proved    bool // the server knows the password
}

const (
	scramPlain = "SCRAM-SHA-256"
	scramPlus  = "SCRAM-SHA-256-PLUS" // bound to the TLS connection
)

// newScram begins an exchange with a server that offers mechanisms, names that end in zero bytes.
func newScram(offered []byte, state *tls.ConnectionState) (*scram, error) {
	names := map[string]bool{}
	for name := range bytes.SplitSeq(offered, []byte{0}) {
		names[string(name)] = true
	}
	var nonce [18]byte
	_, _ = rand.Read(nonce[:])
	s := &scram{nonce: base64.StdEncoding.EncodeToString(nonce[:]), mechanism: scramPlain, header: "n,,"}
	if state != nil {
		s.binding = endPoint(state.PeerCertificates)
	}
	switch {
	case len(s.binding) > 0 && names[scramPlus]:
		s.mechanism, s.header = scramPlus, "p=tls-server-end-point,,"
	case !names[scramPlain]:
		return nil, refuseAuth("the server offers %q", offered)
	case len(s.binding) > 0: // we could have bound: a server that offers it then knows that somebody stands between
		s.header, s.binding = "y,,", nil
	}
	s.bare = "n=,r=" + s.nonce // PostgreSQL takes the user from the startup message
	return s, nil
}

// endPoint returns the hash of a server's certificate (RFC 5929 §4.1), or nil where none is defined.
func endPoint(chain []*x509.Certificate) []byte {
	if len(chain) == 0 {
		return nil
	}
	switch cert := chain[0]; cert.SignatureAlgorithm {
	case x509.SHA384WithRSA, x509.ECDSAWithSHA384, x509.SHA384WithRSAPSS:
		sum := sha512.Sum384(cert.Raw)
		return sum[:]
	case x509.SHA512WithRSA, x509.ECDSAWithSHA512, x509.SHA512WithRSAPSS:
		sum := sha512.Sum512(cert.Raw)
		return sum[:]
	case x509.SHA1WithRSA, x509.ECDSAWithSHA1, x509.SHA256WithRSA, x509.ECDSAWithSHA256, x509.SHA256WithRSAPSS:
		sum := sha256.Sum256(cert.Raw)
		return sum[:]
	}
	return nil
}

// first returns the first message.
func (s *scram) first() []byte {
	message := s.header + s.bare
	b := append([]byte(s.mechanism), 0)
	return append(binary.BigEndian.AppendUint32(b, uint32(len(message))), message...)
}

// answer answers the server's first message with the proof that the password is known.
func (s *scram) answer(data []byte, password secret.Value) ([]byte, error) {
	s.answered = true
	nonce, salt, iterations, err := s.challenge(string(data))
	if err != nil {
		return nil, err
	}
	binding := base64.StdEncoding.EncodeToString(append([]byte(s.header), s.binding...))
	final := "c=" + binding + ",r=" + nonce
	message := []byte(s.bare + "," + string(data) + "," + final)
	var proof []byte
	err = password.Use(func(p []byte) error {
		salted, err := pbkdf2.Key(sha256.New, string(p), salt, iterations, sha256.Size)
		if err != nil {
			return err
		}
		defer secret.Wipe(salted)
		clientKey := mac(salted, []byte("Client Key"))
		stored := sha256.Sum256(clientKey)
		proof = mac(stored[:], message)
		for i := range proof {
			proof[i] ^= clientKey[i]
		}
		secret.Wipe(clientKey)
		s.signature = mac(mac(salted, []byte("Server Key")), message)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return []byte(final + ",p=" + base64.StdEncoding.EncodeToString(proof)), nil
}

// challenge reads the server's first message, r=nonce,s=salt,i=iterations.
func (s *scram) challenge(text string) (nonce string, salt []byte, iterations int, err error) {
	parts := strings.Split(text, ",")
	if len(parts) != 3 || !strings.HasPrefix(parts[0], "r="+s.nonce) || !strings.HasPrefix(parts[1], "s=") || !strings.HasPrefix(parts[2], "i=") {
		return "", nil, 0, refuseAuth("the server's challenge is malformed")
	}
	nonce = parts[0][2:]
	salt, err = base64.StdEncoding.DecodeString(parts[1][2:])
	if err != nil || len(salt) == 0 || len(salt) > maxSalt || len(nonce) == len(s.nonce) {
		return "", nil, 0, refuseAuth("the server's challenge is malformed")
	}
	iterations, err = strconv.Atoi(parts[2][2:])
	if err != nil || iterations < minIterations || iterations > maxIterations {
		return "", nil, 0, refuseAuth("the server wants %q iterations, %d to %d are acceptable", parts[2][2:], minIterations, maxIterations)
	}
	return nonce, salt, iterations, nil
}

// verify checks the server's own proof.
func (s *scram) verify(data []byte) error {
	text, ok := strings.CutPrefix(string(data), "v=")
	signature, err := base64.StdEncoding.DecodeString(text)
	if !ok || err != nil || !hmac.Equal(signature, s.signature) {
		return refuseAuth("the server does not know the password")
	}
	s.proved = true
	return nil
}

func mac(key, data []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(data)
	return h.Sum(nil)
}
