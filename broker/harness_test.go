package broker

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/bhttp"
	"torno.internal/protocol/control"
	"torno.internal/protocol/seal"
)

const testKey = "sk-test-4c1d9e8f7a6b5c4d3e2f1a0b9c8d7e6f"

// A desk is a running broker and its control client.
type desk struct {
	t      testing.TB
	dir    string
	cfg    Config
	broker *Broker
	client *http.Client
	stop   func()
}

// newDesk starts a broker that reaches api.example.org at upstream.
func newDesk(t testing.TB, upstream *httptest.Server) *desk {
	t.Helper()
	d := planDesk(t, upstream)
	d.start()
	return d
}

// planDesk is newDesk without starting the broker.
func planDesk(t testing.TB, upstream *httptest.Server) *desk {
	t.Helper()
	dir, err := os.MkdirTemp("", "tb")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	d := &desk{t: t, dir: dir}
	d.cfg = Config{StateDir: filepath.Join(dir, "s"), RuntimeDir: filepath.Join(dir, "r"), Log: slog.New(slog.DiscardHandler)}
	if upstream != nil {
		ca := filepath.Join(dir, "ca.pem")
		block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: upstream.Certificate().Raw})
		if err := os.WriteFile(ca, block, 0o600); err != nil {
			t.Fatal(err)
		}
		d.cfg.Operator.Upstreams = []control.Upstream{{Host: "example.com", Dial: upstream.Listener.Addr().String(), CA: ca}}
	}
	return d
}

func (d *desk) start() {
	d.t.Helper()
	b, err := Open(d.cfg)
	if err != nil {
		d.t.Fatal(err)
	}
	d.broker = b
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- b.Serve(ctx) }()
	stopped := false
	d.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := errors.Join(<-served, b.Close()); err != nil {
			d.t.Errorf("stopping the broker: %v", err)
		}
	}
	d.t.Cleanup(func() { d.stop() })
	sock := filepath.Join(d.cfg.RuntimeDir, control.SocketName)
	d.client = &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var nd net.Dialer
			return nd.DialContext(ctx, "unix", sock)
		},
	}}
	for range 100 {
		if resp, err := d.client.Get("http://torno" + control.PathHealth); err == nil {
			resp.Body.Close()
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	d.t.Fatal("the broker does not answer")
}

// call asks the control API and decodes its answer into out; an error answer comes back.
func (d *desk) call(method, path string, in, out any) error {
	d.t.Helper()
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			d.t.Fatal(err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, "http://torno"+path, body)
	if err != nil {
		d.t.Fatal(err)
	}
	resp, err := d.client.Do(req)
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		var e control.Error
		if err := json.NewDecoder(resp.Body).Decode(&e); err != nil {
			d.t.Fatal(err)
		}
		return &e
	}
	if out == nil {
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(out)
}

func (d *desk) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

// set sets a bearer secret for https://example.com.
func (d *desk) set(agent, name, value string, version int) error {
	d.t.Helper()
	return d.setFor(agent, name, value, version, "https://example.com")
}

// setFor sets a bearer secret for an audience.
func (d *desk) setFor(agent, name, value string, version int, audience ...string) error {
	d.t.Helper()
	return d.setMeta(control.Meta{Agent: agent, Name: name, Version: version, Audience: audience,
		Inject: control.Injector{Scheme: control.SchemeBearer}}, value)
}

// setMeta sets a secret that is what m says.
func (d *desk) setMeta(m control.Meta, value string) error {
	d.t.Helper()
	return d.call("POST", control.PathSecrets, []control.SealedSecret{d.seal(m, value)}, nil)
}

// seal seals a secret that is what m says.
func (d *desk) seal(m control.Meta, value string) control.SealedSecret {
	d.t.Helper()
	var pk control.PublicKey
	d.must(d.call("GET", control.PathPublicKey, nil, &pk))
	key, err := seal.ParsePublicKey(pk.Key)
	d.must(err)
	m.Created = time.Now()
	sealed, err := key.Seal([]byte(value), control.AssociatedData(m, pk.ID))
	d.must(err)
	return control.SealedSecret{Meta: m, KeyID: pk.ID, Sealed: sealed}
}

// session registers a session of agent and returns where its guest connects.
func (d *desk) session(agent string) control.SessionCreated {
	d.t.Helper()
	var s control.SessionCreated
	d.must(d.call("POST", control.PathSessions, control.SessionRequest{
		Agent: agent, Isolation: protocol.IsolationNamespace, Workload: protocol.Workload{Argv: []string{"true"}},
	}, &s))
	return s
}

// A peer is a stream to the broker as a guest opens it.
type peer struct {
	net.Conn
	r *bhttp.Reader
	w *bhttp.Writer
}

// dial opens a stream; its error is that of the preface.
func (d *desk) dial(addr string, kind protocol.Kind, token []byte) (*peer, error) {
	d.t.Helper()
	c, err := net.Dial("unix", strings.TrimPrefix(addr, "unix://"))
	if err != nil {
		return nil, err
	}
	return d.open(c, kind, token)
}

// open opens a stream on a connection; its error is that of the preface.
func (d *desk) open(c net.Conn, kind protocol.Kind, token []byte) (*peer, error) {
	d.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	p := protocol.Preface{Version: protocol.Version, Kind: kind}
	copy(p.Token[:], token)
	if _, err := c.Write(p.AppendTo(nil)); err != nil {
		return nil, err
	}
	if err := protocol.ReadPrefaceReply(c); err != nil {
		return nil, err
	}
	return &peer{c, bhttp.NewReader(c), bhttp.NewWriter(c)}, nil
}

// ask sends one request and reads the whole answer.
func (p *peer) ask(req *protocol.Request, content string) (protocol.Response, string, error) {
	var resp protocol.Response
	if err := p.w.WriteRequest(req); err != nil {
		return resp, "", err
	}
	if _, err := io.WriteString(p.w, content); err != nil {
		return resp, "", err
	}
	if err := p.w.Close(nil); err != nil {
		return resp, "", err
	}
	if err := p.r.ReadResponse(&resp); err != nil {
		return resp, "", err
	}
	body, err := io.ReadAll(p.r)
	if err != nil {
		return resp, "", err
	}
	var trailer protocol.Fields
	return resp, string(body), p.r.ReadTrailer(&trailer)
}

// hello says hello with nonce.
func (d *desk) hello(addr string, nonce byte) (protocol.HelloResponse, error) {
	d.t.Helper()
	p, err := d.dial(addr, protocol.KindHello, nil)
	if err != nil {
		return protocol.HelloResponse{}, err
	}
	return p.hello(nonce, nil)
}

// hello says hello with nonce and a boot nonce, on a stream of that kind, and closes it.
func (p *peer) hello(nonce byte, boot []byte) (h protocol.HelloResponse, err error) {
	defer p.Close()
	body, _ := json.Marshal(protocol.HelloRequest{Nonce: bytes.Repeat([]byte{nonce}, protocol.NonceSize), Guest: "test", Boot: boot})
	resp, answer, err := p.ask(&protocol.Request{Method: "POST", Scheme: "torno", Authority: "broker", Path: protocol.PathHello}, string(body))
	if err != nil {
		return h, err
	}
	if resp.Status != 200 {
		return h, fmt.Errorf("hello: %d %s", resp.Status, answer)
	}
	return h, json.Unmarshal([]byte(answer), &h)
}

func get(path string, fields ...protocol.Field) *protocol.Request {
	return &protocol.Request{Method: "GET", Scheme: "https", Authority: "example.com", Path: path, Fields: fields}
}

// checkKey answers whether the right bearer token, and no other credential, arrived.
func checkKey(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	ok := len(r.Header.Values("Authorization")) == 1 && r.Header.Get("Authorization") == "Bearer "+testKey
	fmt.Fprintf(w, "%v %d %s", ok, len(body), r.Header.Get("Torno-Dialled"))
}
