package config

import (
	"os"
	"reflect"
	"regexp"
	"testing"

	"torno.internal/protocol/control"
)

// TestDocs reads every block of TOML in the pages for operators.
func TestDocs(t *testing.T) {
	for _, page := range []string{"../../../docs/audit.md", "../../../docs/corporate.md", "../../../docs/metrics.md", "../../../docs/plugins.md"} {
		b, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		blocks := regexp.MustCompile("(?s)```toml\n(.*?)```").FindAllSubmatch(b, -1)
		if len(blocks) == 0 {
			t.Errorf("%s has no block", page)
		}
		for i, block := range blocks {
			if _, err := ParseBroker("/etc/torno/broker.toml", block[1]); err != nil {
				t.Errorf("%s, block %d: %v", page, i+1, err)
			}
		}
	}
}

// TestDocsSchemes reads the blocks of the page on schemes, which are of both files.
func TestDocsSchemes(t *testing.T) {
	b, err := os.ReadFile("../../../docs/schemes.md")
	if err != nil {
		t.Fatal(err)
	}
	for i, block := range regexp.MustCompile("(?s)```toml\n(.*?)```").FindAllSubmatch(b, -1) {
		_, agentErr := ParseAgent("torno.toml", block[1])
		c, err := ParseBroker("broker.toml", block[1])
		if err != nil && agentErr != nil || err == nil && !c.Agents["my-agent"].Presign {
			t.Errorf("block %d: %v, %v", i+1, err, agentErr)
		}
	}
}

// TestExamples reads the examples that packages install; in broker.toml also what stands there as a comment.
func TestExamples(t *testing.T) {
	b, err := os.ReadFile("../../systemd/broker.toml")
	if err != nil {
		t.Fatal(err)
	}
	if c, err := ParseBroker("/etc/torno/broker.toml", b); err != nil || !reflect.DeepEqual(c, control.Config{}) {
		t.Errorf("broker.toml does something: %+v, %v", c, err)
	}
	written := regexp.MustCompile(`(?m)^#([^ \n])`).ReplaceAll(b, []byte("$1"))
	if c, err := ParseBroker("/etc/torno/broker.toml", written); err != nil || len(c.Upstreams)+len(c.Agents) != 2 || c.Audit.KeepDays == 0 {
		t.Errorf("broker.toml without its comment signs: %+v, %v", c, err)
	}
	if b, err = os.ReadFile("../../../.ci/tools/dist/package/torno.toml"); err != nil {
		t.Fatal(err)
	}
	if a, err := ParseAgent("torno.toml", b); err != nil || len(a.Secrets) != 1 {
		t.Errorf("torno.toml: %+v, %v", a, err)
	}
}

func TestListen(t *testing.T) {
	c, err := ParseBroker("broker.toml", []byte("listen = \"vsock://2:618\"\n"))
	if err != nil || c.Listen != "vsock://2:618" {
		t.Errorf("%+v, %v", c, err)
	}
	for _, bad := range []string{"", "618", "vsock://3:618", "vsock://2:1024", "unix:///p", "hybrid:///p", "vsock://1:618"} {
		if c, err := ParseBroker("broker.toml", []byte("listen = \""+bad+"\"\n")); err == nil {
			t.Errorf("listen = %q passes: %+v", bad, c)
		}
	}
}

func TestProxyKeys(t *testing.T) {
	c, err := ParseBroker("/etc/torno/broker.toml", []byte("[egress]\nproxy = \"http://p.example:3128\"\nproxy_authorization_file = \"auth\"\nno_proxy = [\"a.example\"]\nnat64 = [\"2001:db8::/96\"]\n"))
	if err != nil || c.Egress.Proxy != "http://p.example:3128" || c.Egress.ProxyAuthorizationFile != "/etc/torno/auth" || len(c.Egress.NoProxy)+len(c.Egress.NAT64) != 2 {
		t.Errorf("%+v, %v", c.Egress, err)
	}
	for _, bad := range []string{
		"[egress]\nproxy = \"https://p.example:1\"\n", "[egress]\nproxy = \"http://u:p@p.example:1\"\n", "[egress]\nno_proxy = [\"a\"]\n",
		"[limits]\nreflections_per_response = 0\n", "[audit]\nsync = \"never\"\n", "[audit]\nkeep_mib = 16\n", "[audit]\nkeep_days = 0\n", "[limits]\nunknown = 1\n", "[metrics]\nlisten = \"0.0.0.0:9118\"\n", "[metrics]\nport = 1\n", "[agents.a]\nminting = \"maybe\"\n",
	} {
		if _, err := ParseBroker("broker.toml", []byte(bad)); err == nil {
			t.Errorf("%q passes", bad)
		}
	}
}
