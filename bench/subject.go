package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Names of the subjects.
const (
	nameDirect = "direct"
	nameNginx  = "nginx"
	nameProxy  = "ReverseProxy"
	nameTorno  = "torno"
)

// A subject stands between a load generator and the upstream.
type subject struct {
	target target
	load   *loader
	roots  []int                 // processes that count, with what is below them
	not    func() ([]int, error) // processes that do not, with what is below them; nil: none
	both   func() ([]int, error) // processes whose memory counts; nil: those that count
	parts  []*child              // to stop, last first
	remove string                // directory to remove at last
}

func (s *subject) stop() {
	for i := len(s.parts) - 1; i >= 0; i-- {
		s.parts[i].stop()
	}
	if s.remove != "" {
		os.RemoveAll(s.remove)
	}
}

// pids returns the processes whose CPU time is the subject's.
func (s *subject) pids() ([]int, error) {
	all, err := processes()
	if err != nil {
		return nil, err
	}
	var without []int
	if s.not != nil {
		if without, err = s.not(); err != nil {
			return nil, err
		}
	}
	return below(all, s.roots, without), nil
}

// cpu calls f and returns the CPU time that the subject used meanwhile.
func (s *subject) cpu(f func() error) (time.Duration, error) {
	pids, err := s.pids()
	if err != nil {
		return 0, err
	}
	before, err := cpuOf(pids)
	if err != nil {
		return 0, err
	}
	if err := f(); err != nil {
		return 0, err
	}
	after, err := cpuOf(pids)
	return after - before, err
}

// memory returns the subject's PSS in KiB.
func (s *subject) memory() (int64, error) {
	find := s.pids
	if s.both != nil {
		find = s.both
	}
	pids, err := find()
	if err != nil {
		return 0, err
	}
	return memoryOf(pids)
}

func (s *subject) call(ctx context.Context, c command) (reply, error) {
	c.Target = s.target
	return s.load.call(ctx, c)
}

// A house is what all subjects share: a directory, certificates, the upstream, the load generator outside.
type house struct {
	dir      string
	self     string // this executable
	bin      string // where torno and torno-guest are
	nginx    string // its executable
	pki      pki
	upstream string // address
	load     *loader
	parts    []*child
}

// newHouse starts the upstream and the load generator below a new temporary directory.
func newHouse(ctx context.Context, bin string) (*house, error) {
	dir, err := os.MkdirTemp("", "tbench") // short: sockets lie below it
	if err != nil {
		return nil, err
	}
	h := &house{dir: dir, bin: bin}
	if err := h.start(ctx); err != nil {
		h.stop()
		return nil, err
	}
	return h, nil
}

func (h *house) start(ctx context.Context) error {
	if err := os.Chmod(h.dir, 0o755); err != nil { // the workload's user must reach its program
		return err
	}
	var err error
	if h.self, err = os.Executable(); err != nil {
		return err
	}
	if h.nginx, err = findNginx(); err != nil {
		return err
	}
	if h.pki, err = writePKI(h.dir); err != nil {
		return err
	}
	up, err := h.spawn("upstream", nil, "upstream", "-cert", h.pki.cert, "-key", h.pki.key)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if h.upstream, err = up.line(ctx); err != nil {
		return err
	}
	load, err := h.spawn("load", []string{"SSL_CERT_FILE=" + h.pki.ca}, "load")
	if err != nil {
		return err
	}
	h.load = newLoader(load)
	return nil
}

// startTimeout bounds the start of one process.
const startTimeout = 20 * time.Second

// spawn starts a subcommand of this binary, which lives as long as the house.
func (h *house) spawn(name string, env []string, args ...string) (*child, error) {
	c, err := spawn(name, h.self, args, env, h.dir)
	if err == nil {
		h.parts = append(h.parts, c)
	}
	return c, err
}

func (h *house) stop() {
	for i := len(h.parts) - 1; i >= 0; i-- {
		h.parts[i].stop()
	}
	os.RemoveAll(h.dir)
}

func (h *house) direct() *subject {
	return &subject{target: target{Name: nameDirect, Dial: h.upstream}, load: h.load}
}

func (h *house) reverseProxy(ctx context.Context) (*subject, error) {
	c, err := spawn(nameProxy, h.self, []string{"revproxy", "-cert", h.pki.cert, "-key", h.pki.key, "-ca", h.pki.ca, "-upstream", h.upstream}, nil, h.dir)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	addr, err := c.line(ctx)
	if err != nil {
		c.stop()
		return nil, err
	}
	return &subject{target: target{nameProxy, addr, true}, load: h.load, roots: []int{c.cmd.Process.Pid}, parts: []*child{c}}, nil
}

func findNginx() (string, error) {
	for _, path := range []string{"nginx", "/usr/sbin/nginx", "/usr/local/sbin/nginx"} {
		if found, err := exec.LookPath(path); err == nil {
			return found, nil
		}
	}
	return "", fmt.Errorf("nginx is missing: apt-get install nginx-light")
}

// nginxConf is nginx at its best for this: two workers, kept connections on both sides, nothing on disk
// but the access log.
const nginxConf = `%[1]sworker_processes 2;
pid %[2]s/nginx.pid;
error_log %[2]s/error.log;
daemon off;
events { worker_connections 8192; }
http {
	access_log %[2]s/access.log;
	client_body_temp_path %[2]s/body;
	proxy_temp_path %[2]s/proxy;
	fastcgi_temp_path %[2]s/fastcgi;
	uwsgi_temp_path %[2]s/uwsgi;
	scgi_temp_path %[2]s/scgi;
	sendfile on;
	keepalive_timeout 600;
	keepalive_requests 100000000;
	client_max_body_size 0;
	ssl_protocols TLSv1.3;
	ssl_ecdh_curve X25519;
	upstream api {
		server %[3]s;
		keepalive 64;
		keepalive_requests 100000000;
		keepalive_timeout 600;
	}
	server {
		listen %[4]s ssl backlog=4096;
		server_name %[5]s;
		ssl_certificate %[6]s;
		ssl_certificate_key %[7]s;
		proxy_http_version 1.1;
		proxy_set_header Connection "";
		proxy_set_header Host %[5]s;
		proxy_set_header Authorization "Bearer %[9]s";
		proxy_ssl_verify on;
		proxy_ssl_trusted_certificate %[8]s;
		proxy_ssl_name %[5]s;
		proxy_ssl_server_name on;
		proxy_ssl_protocols TLSv1.3;
		proxy_request_buffering off;
		proxy_max_temp_file_size 0;
		location / { proxy_pass https://api; }
		location /sse { proxy_pass https://api; proxy_buffering off; }
	}
}
`

// startNginx starts nginx on a free port.
func (h *house) startNginx(ctx context.Context) (*subject, error) {
	dir, err := os.MkdirTemp(h.dir, "nginx")
	if err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	addr := ln.Addr().String()
	ln.Close()
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;\n" // so that its workers may write here
	}
	conf := fmt.Sprintf(nginxConf, user, dir, h.upstream, addr, upstreamHost, h.pki.cert, h.pki.key, h.pki.ca, credential)
	path := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(path, []byte(conf), 0o600); err != nil {
		return nil, err
	}
	c, err := spawn(nameNginx, h.nginx, []string{"-p", dir, "-e", filepath.Join(dir, "error.log"), "-c", path}, nil, dir)
	if err != nil {
		return nil, err
	}
	s := &subject{target: target{nameNginx, addr, true}, load: h.load, roots: []int{c.cmd.Process.Pid}, parts: []*child{c}, remove: dir}
	if err := waitForListener(ctx, c, addr); err != nil {
		said, _ := os.ReadFile(filepath.Join(dir, "error.log"))
		s.stop()
		return nil, fmt.Errorf("%w %s", err, strings.TrimSpace(string(said)))
	}
	return s, nil
}

// waitForListener waits until somebody listens on addr.
func waitForListener(ctx context.Context, c *child, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		nc, err := net.Dial("tcp", addr)
		if err == nil {
			return nc.Close()
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-c.ended:
			return c.failure(ctx, err)
		case <-ctx.Done():
			return c.failure(ctx, err)
		}
	}
}
