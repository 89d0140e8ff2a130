// Stolen is what an attacker runs who has become the guest: it is the VM's first program, has the session's token, and
// asks the broker for all that it can think of. What comes of each goes to the console.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"torno.internal/protocol"
	"torno.internal/protocol/bhttp"
	"torno.internal/protocol/transport"
)

func main() {
	if err := run(); err != nil {
		fmt.Println("stolen:", err)
	}
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
}

// boot does what the guest does until it can dial.
func boot() error {
	list, err := os.ReadFile("/torno/modules")
	if err != nil {
		return err
	}
	for name := range strings.FieldsSeq(string(list)) {
		f, err := os.Open("/torno/" + name)
		if err != nil {
			return err
		}
		if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil {
			return err
		}
	}
	return errors.Join(os.MkdirAll("/dev", 0o755), unix.Mount("devtmpfs", "/dev", "devtmpfs", 0, ""))
}

func run() error {
	if err := boot(); err != nil {
		return err
	}
	var hello protocol.HelloResponse
	var err error
	for range 100 { // the device takes its time
		if hello, err = sayHello(); err == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err != nil {
		return err
	}
	token := protocol.Token(hello.Token)
	for _, a := range []struct{ name, result string }{
		{"within policy", get(protocol.KindForward, token, "https", "api.anthropic.com", "/v1/models")},
		{"beyond policy", get(protocol.KindForward, token, "https", "denied.example.net", "/")},
		{"denied path", get(protocol.KindForward, token, "https", "files.example.org", "/forbidden")},
		{"secret over http", get(protocol.KindForward, token, "http", "api.anthropic.com", "/v1/models")},
		{"private address", get(protocol.KindForward, token, "https", "127.0.0.1", "/")},
		{"own scheme on the wrong stream", get(protocol.KindForward, token, protocol.Scheme, protocol.BrokerAuthority, protocol.PathHello)},
		{"workload's request on the wrong stream", get(protocol.KindChannel, token, "https", "api.anthropic.com", "/v1/models")},
		{"unknown path of the channel", get(protocol.KindChannel, token, protocol.Scheme, protocol.BrokerAuthority, "/v1/secrets")},
		{"another token", get(protocol.KindForward, protocol.Token{1}, "https", "api.anthropic.com", "/v1/models")},
		{"hello again", again()},
		{"leaf", leaf(token)},
	} {
		fmt.Printf("stolen: %s: %s\n", a.name, a.result)
	}
	return nil
}

// ask makes one exchange on a stream of its own.
func ask(p protocol.Preface, req protocol.Request, content []byte) (*protocol.Response, []byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	addr, err := transport.ParseAddr(fmt.Sprintf("vsock://2:%d", protocol.BrokerPort))
	if err != nil {
		return nil, nil, err
	}
	c, err := transport.Dial(ctx, addr)
	if err != nil {
		return nil, nil, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.Write(p.AppendTo(nil)); err != nil {
		return nil, nil, err
	}
	if err := protocol.ReadPrefaceReply(c); err != nil {
		return nil, nil, err
	}
	return exchange(c, req, content)
}

func exchange(c net.Conn, req protocol.Request, content []byte) (*protocol.Response, []byte, error) {
	w, r := bhttp.NewWriter(c), bhttp.NewReader(c)
	if err := w.WriteRequest(&req); err != nil {
		return nil, nil, err
	}
	if len(content) > 0 {
		if _, err := w.Write(content); err != nil {
			return nil, nil, err
		}
	}
	if err := w.Close(nil); err != nil {
		return nil, nil, err
	}
	var resp protocol.Response
	if err := r.ReadResponse(&resp); err != nil {
		return nil, nil, err
	}
	b, err := io.ReadAll(io.LimitReader(r, 1<<20))
	return &resp, b, err
}

func preface(kind protocol.Kind, token protocol.Token) protocol.Preface {
	return protocol.Preface{Version: protocol.Version, Kind: kind, Token: token}
}

func get(kind protocol.Kind, token protocol.Token, scheme, authority, path string) string {
	req := protocol.Request{Method: "GET", Scheme: scheme, Authority: authority, Path: path}
	return outcome(ask(preface(kind, token), req, nil))
}

func outcome(resp *protocol.Response, _ []byte, err error) string {
	var status *protocol.StatusError
	switch {
	case errors.As(err, &status):
		return err.Error()
	case err != nil:
		return "closed"
	}
	return strings.TrimSpace(fmt.Sprint(resp.Status, " ", resp.Fields.Get(protocol.FieldReason)))
}

func post(path string) protocol.Request {
	return protocol.Request{Method: "POST", Scheme: protocol.Scheme, Authority: protocol.BrokerAuthority, Path: path}
}

func sayHello() (hello protocol.HelloResponse, err error) {
	nonce := make([]byte, protocol.NonceSize)
	rand.Read(nonce)
	content, err := json.Marshal(protocol.HelloRequest{Nonce: nonce, Guest: "stolen"})
	if err != nil {
		return hello, err
	}
	_, b, err := ask(preface(protocol.KindHello, protocol.Token{}), post(protocol.PathHello), content)
	if err == nil {
		err = json.Unmarshal(b, &hello)
	}
	return hello, err
}

// again asks for another hello, as a clone of the VM would.
func again() string {
	_, err := sayHello()
	return outcome(&protocol.Response{Status: 200}, nil, err)
}

// leaf asks for a certificate, which is good in this VM alone.
func leaf(token protocol.Token) string {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err.Error()
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return err.Error()
	}
	content, err := json.Marshal(protocol.LeafRequest{Name: "api.anthropic.com", Key: public})
	if err != nil {
		return err.Error()
	}
	resp, b, err := ask(preface(protocol.KindChannel, token), post(protocol.PathLeaf), content)
	if err == nil && strings.Contains(string(b), "PRIVATE") {
		return "a private key"
	}
	return outcome(resp, b, err)
}
