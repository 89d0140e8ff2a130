package boot

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/bhttp"
	"torno.internal/protocol/transport"
)

// A fakeBroker answers a guest's streams, those of the run channel too.
type fakeBroker struct {
	t     *testing.T
	hello protocol.HelloResponse
	// forward answers forwarded requests; nil: the self-test's refusal for its name, 200 otherwise.
	forward func(protocol.Request) protocol.Response
	broker  transport.Addr
	run     transport.Addr
	key     *ecdsa.PrivateKey
	ca      *x509.Certificate

	hellos   atomic.Int32
	used     atomic.Bool // the token; there is no other hello then
	mu       sync.Mutex
	requests []protocol.Request // forwarded
	output   map[string][]byte  // by run path
}

func newBroker(t *testing.T) *fakeBroker {
	t.Helper()
	b := &fakeBroker{t: t, output: map[string][]byte{}}
	var err error
	if b.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "session CA"}, IsCA: true, BasicConstraintsValid: true,
		MaxPathLenZero: true, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &b.key.PublicKey, b.key)
	if err != nil {
		t.Fatal(err)
	}
	b.ca, _ = x509.ParseCertificate(der)
	b.hello = protocol.HelloResponse{
		Agent: "my-agent", Session: "s", Token: bytes.Repeat([]byte{1}, protocol.TokenSize), RunToken: bytes.Repeat([]byte{2}, protocol.TokenSize),
		Isolation: protocol.IsolationNamespace, Time: time.Now(),
		CA:       string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		Workload: protocol.Workload{Argv: []string{"true"}, User: protocol.UserAgent},
	}
	dir := t.TempDir()
	for name, addr := range map[string]*transport.Addr{"b": &b.broker, "r": &b.run} {
		*addr = transport.Addr{Network: transport.Unix, Path: filepath.Join(dir, name)}
		l, err := transport.Listen(*addr, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() { defer c.Close(); b.serve(c) }()
			}
		}()
	}
	return b
}

func (b *fakeBroker) serve(c net.Conn) {
	preface, err := protocol.ReadPreface(c)
	if err != nil {
		return
	}
	reply := protocol.PrefaceReply{Version: protocol.Version}
	if preface.Kind == protocol.KindChannel && preface.Token != protocol.Token(b.hello.Token) {
		reply.Status = protocol.StatusToken
	}
	switch {
	case preface.Kind == protocol.KindHello && b.used.Load():
		reply.Status = protocol.StatusHelloUsed
	case preface.Kind != protocol.KindHello && reply.Status == protocol.StatusOK:
		b.used.Store(true)
	}
	c.Write(reply.AppendTo(nil))
	r, w := bhttp.NewReader(c), bhttp.NewWriter(c)
	for {
		var request protocol.Request
		if r.ReadRequest(&request) != nil {
			return
		}
		content, err := io.ReadAll(r)
		var trailer protocol.Fields
		if err != nil || r.ReadTrailer(&trailer) != nil {
			return
		}
		response, answer := protocol.Response{Status: 200}, []byte(nil)
		switch {
		case preface.Kind == protocol.KindForward:
			response, answer = b.answer(request)
		case preface.Kind == protocol.KindRun:
			b.mu.Lock()
			b.output[request.Path] = content
			b.mu.Unlock()
		case request.Path == protocol.PathHello:
			b.hellos.Add(1)
			answer, _ = json.Marshal(b.hello)
		case request.Path == protocol.PathLeaf:
			answer = b.leaf(content)
		case request.Path == protocol.PathSign:
			answer = []byte(`{"remove":[],"fields":[{"name":"x-asked","value":"` + strconv.Itoa(len(content)) + `"}],"expires":"2026-01-02T15:04:05Z"}`)
		}
		w.WriteResponse(&response)
		w.Write(answer)
		w.Flush()
		if request.Path == protocol.PathEvents || request.Path == protocol.PathRunEvents {
			io.Copy(io.Discard, c) // until the guest hangs up
			return
		}
		if w.Close(nil) != nil {
			return
		}
	}
}

func (b *fakeBroker) answer(request protocol.Request) (protocol.Response, []byte) {
	b.mu.Lock()
	request.Fields = request.Fields.Clone()
	b.requests = append(b.requests, request)
	b.mu.Unlock()
	if b.forward != nil {
		return b.forward(request), nil
	}
	if request.Authority == protocol.SelfTestAuthority || request.Authority == protocol.SelfTestAuthority+":443" {
		return protocol.Refusal(protocol.ReasonSelfTest)
	}
	return protocol.Response{Status: 200}, []byte(request.Method + " " + request.Scheme + "://" + request.Authority + request.Path + "\n")
}

func (b *fakeBroker) leaf(body []byte) []byte {
	var request protocol.LeafRequest
	if err := json.Unmarshal(body, &request); err != nil {
		b.t.Errorf("leaf request %q: %v", body, err)
		return nil
	}
	key, err := x509.ParsePKIXPublicKey(request.Key)
	if err != nil {
		b.t.Errorf("leaf request: %v", err)
		return nil
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if ip := net.ParseIP(request.Name); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{request.Name}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, b.ca, key, b.key)
	if err != nil {
		b.t.Error(err)
	}
	answer, _ := json.Marshal(protocol.LeafResponse{Certificate: der, NotAfter: template.NotAfter})
	return answer
}

// result returns what the guest sent over the run channel.
func (b *fakeBroker) result() (stdout, stderr string, exit protocol.Exit) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := json.Unmarshal(b.output[protocol.PathExit], &exit); err != nil {
		b.t.Errorf("exit %q: %v", b.output[protocol.PathExit], err)
	}
	return string(b.output[protocol.PathStdout]), string(b.output[protocol.PathStderr]), exit
}
