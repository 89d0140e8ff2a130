package front

import (
	"encoding/pem"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// curl, with its own ideas of Expect, HTTP/2 upgrades and proxies.
func TestCurl(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("curl is not installed (try: apt-get install curl)")
	}
	h := newHouse(t)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: h.ca.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(h.addr)
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"https":        {[]string{"https://a.example/x"}, "GET https://a.example:443/x 0 [] 200"},
		"http upgrade": {[]string{"--http2", "http://a.example:443/x"}, "GET http://a.example:443/x 0 [] 200"},
		"prior":        {[]string{"--http2-prior-knowledge", "http://a.example:443/x"}, "GET http://a.example:443/x 0 [] 200"},
		"post":         {[]string{"-d", "content", "https://a.example/"}, "POST https://a.example:443/ 7 [] 200"},
		"chunked":      {[]string{"-H", "Transfer-Encoding: chunked", "-d", "content", "https://a.example/"}, "POST https://a.example:443/ 7 [] 200"},
		"expect":       {[]string{"-H", "Expect: 100-continue", "--expect100-timeout", "0.1", "-d", "content", "https://a.example/"}, "POST https://a.example:443/ 7 [] 200"},
		"head":         {[]string{"-I", "-o", "/dev/null", "https://a.example/"}, "200"},
		"http 1.0":     {[]string{"-0", "https://a.example/x"}, "GET https://a.example:443/x 0 [] 200"},
		"TLS 1.2":      {[]string{"--tls-max", "1.2", "https://a.example/x"}, "GET https://a.example:443/x 0 [] 200"},
		"TLS 1.1":      {[]string{"--tls-max", "1.1", "--tlsv1.1", "https://a.example/x"}, "000"},
		"proxy":        {[]string{"-x", "http://" + h.proxy, "https://a.example/x"}, "GET https://a.example:443/x 0 [] 200"},
		"proxy http":   {[]string{"-x", "http://" + h.proxy, "http://a.example/x"}, "GET http://a.example:80/x 0 [] 200"},
		"websocket": {[]string{"-o", "/dev/null", "-H", "Connection: Upgrade", "-H", "Upgrade: websocket", "-H", "Sec-WebSocket-Version: 13",
			"-H", "Sec-WebSocket-Key: x", "https://a.example/"}, "400"},
		"upgrade to another": {[]string{"-o", "/dev/null", "-H", "Connection: Upgrade", "-H", "Upgrade: irc", "https://a.example/"}, "501"},
		"trace":              {[]string{"-o", "/dev/null", "-X", "TRACE", "https://a.example/"}, "501"},
	} {
		args := append([]string{"-sS", "-m", "10", "--cacert", ca, "-w", " %{http_code}"}, c.args...)
		if !slices.Contains(c.args, "-x") {
			args = append(args, "--connect-to", "a.example::127.0.0.1:"+port)
		}
		out, _ := exec.Command(curl, args...).Output()
		if got := strings.TrimSpace(string(out)); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
