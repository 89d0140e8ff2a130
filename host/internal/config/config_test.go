package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"torno.internal/protocol/control"
)

const wholeAgent = `
name = "my-agent"
secrets = ["ANTHROPIC_API_KEY", "DATABASE_URL"]

[secret.ANTHROPIC_API_KEY]
placeholder = true
hosts = ["api.anthropic.com"]
headers = ["x-api-key: {ANTHROPIC_API_KEY}"]
rotation = "follow"

[secret]
DATABASE_URL.expose = "none"

[workload]
user = "root"

[egress]
default = "deny"
allow = ["GET *.example.org", "github.com/*/*/git-upload-pack"]
ask   = ["POST api.stripe.com/v1/refunds"]
deny  = ["evil.example"]
tunnel = ["pinned.example:22"]
`

func TestParseAgent(t *testing.T) {
	got, err := ParseAgent("torno.toml", []byte(wholeAgent))
	if err != nil {
		t.Fatal(err)
	}
	none := control.ExposeNone
	want := control.AgentPolicy{
		Name:    "my-agent",
		Secrets: []string{"ANTHROPIC_API_KEY", "DATABASE_URL"},
		Secret: map[string]control.Assertion{
			"ANTHROPIC_API_KEY": {
				Placeholder: true, Hosts: []string{"api.anthropic.com"}, Headers: []string{"x-api-key: {ANTHROPIC_API_KEY}"},
				Rotation: control.RotationFollow,
			},
			"DATABASE_URL": {Expose: &none},
		},
		Workload: control.WorkloadPolicy{User: "root"},
		Egress: control.Egress{
			Default: "deny",
			Allow:   []string{"GET *.example.org", "github.com/*/*/git-upload-pack"},
			Ask:     []string{"POST api.stripe.com/v1/refunds"},
			Deny:    []string{"evil.example"},
			Tunnel:  []string{"pinned.example:22"},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got, err := ParseAgent("torno.toml", []byte(`name = "a"`)); err != nil || !cmp.Equal(got, control.AgentPolicy{Name: "a"}) {
		t.Errorf("smallest file: %+v, %v", got, err)
	}
}

func TestParseAgentNamesEveryFault(t *testing.T) {
	const text = `# comment with [table] and key = 1
Name = "my-agent"
secrts = ["A"]
secrets = [
  "api_key",
  "API_KEY", # fine
  7,
  "API_KEY",
]
note = """
[egress]
allow = 1
"""

[secret.API_KEY]
placeholder = "yes"
expose = "file"
hosts = []
rotaton = "pin"

[secret."OTHER"]

[workload]
user = "toor"

[egres]
allow = []

[egress]
allow = "example.com"
default = "permit"
"denny" = []
inline = { a = 1, b = [ { c = 2 } ] }
`
	const want = `torno.toml: name is missing; write name = "AGENT"
torno.toml:2: unknown key "Name" (did you mean "name"?)
torno.toml:3: unknown key "secrts" (did you mean "secrets"?)
torno.toml:5: secrets: "api_key" is no secret's name; those have A to Z, 0 to 9 and underscores, at most 128, no digit first
torno.toml:7: secrets must be an array of strings
torno.toml:8: secrets: "API_KEY" is there twice
torno.toml:10: unknown key "note"
torno.toml:16: secret.API_KEY.placeholder must be true or false
torno.toml:17: secret.API_KEY.expose is "file", not one of ["env" "none"]
torno.toml:18: secret.API_KEY.hosts is empty; leave it out to keep what is sealed
torno.toml:19: unknown key "secret.API_KEY.rotaton" (did you mean "secret.API_KEY.rotation"?)
torno.toml:21: [secret.OTHER] is not in secrets; add "OTHER" there
torno.toml:24: workload.user is "toor", not one of ["agent" "root"]
torno.toml:26: unknown key "egres" (did you mean "egress"?)
torno.toml:30: egress.allow must be an array of strings
torno.toml:31: egress.default is "permit", not one of ["deny" "allow"]
torno.toml:32: unknown key "egress.denny" (did you mean "egress.deny"?)
torno.toml:33: unknown key "egress.inline"`
	got, err := ParseAgent("torno.toml", []byte(text))
	if err == nil {
		t.Fatal("ParseAgent succeeds")
	}
	if !cmp.Equal(got, control.AgentPolicy{}) {
		t.Errorf("policy beside an error: %+v", got)
	}
	if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	var e *Errors
	if !errors.As(err, &e) || len(e.Problems) != 18 || e.Problems[1].Line != 2 {
		t.Errorf("as *Errors: %+v", e)
	}
}

func TestParseAgentRefuses(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"syntax", "name = \"a\"\nsecrets = [\n\"A\"\n[egress]\n", "torno.toml:4: "},
		{"duplicate key", "name = \"a\"\nname = \"b\"\n", "torno.toml:2: "},
		{"name of wrong type", "name = 1", "torno.toml:1: name must be a string"},
		{"bad name", `name = "../x"`, "an agent's name has a to z"},
		{"not UTF-8", "name = \"a\xff\"", "not UTF-8"},
		{"UTF-16", "n\x00a\x00m\x00e\x00", "torno.toml:1: "},
		{"too large", "name = \"a\"\n" + strings.Repeat("#", MaxFile), "at most 262144"},
		{"table as value", "name = \"a\"\negress = 1", "torno.toml:2: egress must be a table"},
		{"deep array", "name = \"a\"\nx = " + strings.Repeat("[", 100_000), "torno.toml:2: value is nested deeper"},
		{"deep inline table", "x = " + strings.Repeat("{a=", 50_000), "torno.toml:1: value is nested deeper"},
		{"long dotted key", strings.Repeat("a.", 100_000) + "a = 1", "torno.toml:1: key is longer"},
		{"long key", strings.Repeat("a", 200_000) + " = 1", "torno.toml:1: key is longer"},
		{"long header", "[" + strings.Repeat("a.", 100_000) + "a]", "torno.toml:1: key is longer"},
		{"escape in a value", "name = \"\\u001b[31m\"", `"\x1b[31m"`},
		{"escape in a key", "name = \"a\"\n\"\\u001b[31m\" = 1", `unknown key "\"\\x1b[31m\""`},
		{"bidi in a key", "name = \"a\"\n\"\u202e\" = 1", `\u202e`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			start := time.Now()
			_, err := ParseAgent("torno.toml", []byte(tt.in))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("error %v, want one with %q", err, tt.want)
			}
			if EscapeControl(strings.ReplaceAll(err.Error(), "\n", "")) != strings.ReplaceAll(err.Error(), "\n", "") {
				t.Errorf("error %q holds control characters", err)
			}
			if d := time.Since(start); d > 2*time.Second {
				t.Errorf("took %v", d)
			}
		})
	}
}

// Files of the greatest size whose shape is costly to a parser.
func TestHostileFilesAreCheap(t *testing.T) {
	long := strings.Repeat(strings.Repeat("k", maxKeyLen)+".", maxKeyParts-1) + "k"
	for name, text := range map[string]string{
		"tables":          strings.Repeat("[[a]]\n", MaxFile/6),
		"many keys":       manyKeys(MaxFile / 12),
		"one array":       "a = [" + strings.Repeat("1,", MaxFile/2-10) + "]",
		"long path":       "[" + long + "]\na = [" + strings.Repeat("1,", MaxFile/2-1000) + "]",
		"nested arrays":   "a = [" + strings.Repeat("[[[[[[]]]]]],", MaxFile/13-10) + "]",
		"sub-tables":      "[[a]]\n" + strings.Repeat("[[a.b.c.d.e.f]]\n", MaxFile/16-10),
		"quotes":          strings.Repeat(`a = """"`, MaxFile/8),
		"open string":     `a = """` + strings.Repeat("\n\\", MaxFile/2-10),
		"comment":         "#" + strings.Repeat("[", MaxFile-1),
		"unclosed header": strings.Repeat("[", MaxFile),
	} {
		if len(text) > MaxFile {
			t.Fatalf("%s: %d bytes", name, len(text))
		}
		start := time.Now()
		_, _ = ParseAgent("torno.toml", []byte(text))
		if d := time.Since(start); d > 3*time.Second {
			t.Errorf("%s: %v", name, d)
		} else if d > 300*time.Millisecond {
			t.Logf("%s: %v", name, d)
		}
	}
}

func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString("k" + strings.Repeat("x", 1+i%5) + string(rune('a'+i%26)) + "=1\n")
	}
	return b.String()
}

func TestParseBroker(t *testing.T) {
	got, err := ParseBroker("/etc/torno/broker.toml", []byte(`
[[upstream]]
host = "Ollama.Internal."
dial = "127.0.0.1:11434"

[[upstream]]
host = "api.example.com"
port = 8443
dial = "[::1]:9000"
ca = "ca/test.pem"

[egress]
allow_private = ["10.1.0.0/16"]
ca = ["/etc/ssl/corp.pem", "more.pem"]

[agents.my-agent]
allow_private = ["fd00::/8"]
cookies = "pass"
placeholders = "terminate"

[agents.my-agent.egress]
default = "allow"
deny = ["evil.example"]

[agents.other]

[limits]
reflections_per_response = 9
audit_records_per_second = 1000
audit_mib_per_hour = 512

[key]
credential = "torno-key"
command = ["/usr/bin/tpm-unseal", "--key", "7"]
`))
	if err != nil {
		t.Fatal(err)
	}
	want := control.Config{
		Upstreams: []control.Upstream{
			{Host: "ollama.internal", Port: 443, Dial: "127.0.0.1:11434"},
			{Host: "api.example.com", Port: 8443, Dial: "[::1]:9000", CA: "/etc/torno/ca/test.pem"},
		},
		Egress: control.ConfigEgress{AllowPrivate: []string{"10.1.0.0/16"}, CA: []string{"/etc/ssl/corp.pem", "/etc/torno/more.pem"}},
		Agents: map[string]control.Ceiling{
			"my-agent": {
				AllowPrivate: []string{"fd00::/8"}, Cookies: "pass", Placeholders: "terminate",
				Egress: &control.Egress{Default: "allow", Deny: []string{"evil.example"}},
			},
			"other": {},
		},
		Limits: control.Limits{ReflectionsPerResponse: 9, AuditRecordsPerSecond: 1000, AuditMiBPerHour: 512},
		Key:    control.ConfigKey{Credential: "torno-key", Command: []string{"/usr/bin/tpm-unseal", "--key", "7"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got, err := ParseBroker("broker.toml", nil); err != nil || !cmp.Equal(got, control.Config{}) {
		t.Errorf("empty file: %+v, %v", got, err)
	}
}

func TestParseBrokerNamesEveryFault(t *testing.T) {
	const text = `[[upstream]]
host = "a.example"
[[upstream]]
hots = "b.example"
[[upstream]]
host = "A.example."
port = 443
dial = "127.1:80"
[[upstream]]
host = "0x7f.1"
port = 70000
dial = "c.example"

[egress]
proxi = "x"
allow_private = ["10.1.2.3", "10.1.2.3/8"]
ca = [""]

[agents.Bad]
[agents.a]
cookies = "eat"
[agents.a.egress]
allows = []
[agent.b]
[limits]
audit_records_per_second = 0
audit_mib_per_hour = "all"
[key]
credential = "../key"
command = ["tpm-unseal"]
`
	const want = `broker.toml:3: upstream without host
broker.toml:4: unknown key "upstream.1.hots" (did you mean "upstream.1.host"?)
broker.toml:5: upstream a.example:443 is there twice
broker.toml:8: dial is host:port: authority "127.1:80": ends in a number but is not a plain IPv4 address
broker.toml:10: host "0x7f.1": ends in a number but is not a plain IPv4 address
broker.toml:11: upstream.3.port is 70000, not a port from 1 to 65535
broker.toml:12: dial is host:port: authority "c.example": port is missing
broker.toml:15: unknown key "egress.proxi" (did you mean "egress.proxy"?)
broker.toml:16: allow_private: "10.1.2.3" is no CIDR prefix, as in 10.1.0.0/16
broker.toml:16: allow_private: "10.1.2.3/8" has bits beyond its length; write 10.0.0.0/8
broker.toml:17: egress.ca: path is empty
broker.toml:19: [agents.Bad]: an agent's name has a to z, 0 to 9 and hyphens, at most 63, no hyphen first
broker.toml:21: agents.a.cookies is "eat", not one of ["strip" "pass"]
broker.toml:23: unknown key "agents.a.egress.allows" (did you mean "agents.a.egress.allow"?)
broker.toml:24: unknown key "agent" (did you mean "agents"?)
broker.toml:26: limits.audit_records_per_second is 0, not from 1 to 1048576
broker.toml:27: limits.audit_mib_per_hour must be a number
broker.toml:29: key.credential is "../key", not the name of a credential (systemd.exec(5))
broker.toml:30: key.command begins with no absolute path`
	_, err := ParseBroker("broker.toml", []byte(text))
	if err == nil {
		t.Fatal("ParseBroker succeeds")
	}
	if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestAttack48NameOfAnotherAgent(t *testing.T) {
	b := []byte("# from a cloned repository\nname = \"prod\"\n")
	p, err := ParseAgent("torno.toml", b)
	if err != nil {
		t.Fatal(err)
	}
	if err := CheckName("torno.toml", b, p, "prod"); err != nil {
		t.Error(err)
	}
	const want = `torno.toml:2: name is "prod", but --agent is "my-agent"; they must be equal`
	if err := CheckName("torno.toml", b, p, "my-agent"); err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

func TestFindAgentFile(t *testing.T) {
	dir := t.TempDir()
	if _, _, ok, err := FindAgentFile(dir); ok || err != nil {
		t.Errorf("empty directory: %v, %v", ok, err)
	}
	path := filepath.Join(dir, AgentFile)
	if err := os.WriteFile(path, []byte("name = \"a\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, b, ok, err := FindAgentFile(dir); got != path || string(b) != "name = \"a\"\n" || !ok || err != nil {
		t.Errorf("%q, %q, %v, %v", got, b, ok, err)
	}
	if _, _, ok, err := FindAgentFile(filepath.Join(dir, "sub")); ok || err != nil {
		t.Errorf("the parent's file was found: %v, %v", ok, err)
	}
	if err := os.WriteFile(path, make([]byte, MaxFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, ok, err := FindAgentFile(dir); ok || err == nil {
		t.Error("a file over the bound was read")
	}
	for name, replace := range map[string]func(string) error{
		"fifo":      func(p string) error { return syscall.Mkfifo(p, 0o600) },
		"device":    func(p string) error { return os.Symlink("/dev/zero", p) },
		"directory": func(p string) error { return os.Mkdir(p, 0o700) },
	} {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := replace(path); err != nil {
			t.Fatal(err)
		}
		if _, _, ok, err := FindAgentFile(dir); ok || err == nil {
			t.Errorf("%s was read as a file", name)
		}
	}
}

func TestTemplateParses(t *testing.T) {
	draft := Draft{
		Agent: "my-agent",
		Secrets: []DraftSecret{
			{Key: "ANTHROPIC_API_KEY", Why: "Anthropic API; package.json depends on it", Placeholder: true},
			{Key: "GITHUB_TOKEN", Why: "GitHub\n\"evil\", ]"},
			{Key: "DEPLOY_KEY", Why: "perhaps", Placeholder: true, Off: true},
		},
		Allow: []DraftRule{{Rule: "GET api.example.org/v1", Why: "wanted\r]"}, {Rule: "GET other.example.org", Off: true}},
		Notes: []string{"of containers\nuser = \"root\""},
	}
	got, err := ParseAgent("torno.toml", Template(draft))
	if err != nil {
		t.Fatalf("%v\n%s", err, Template(draft))
	}
	want := control.AgentPolicy{
		Name:     "my-agent",
		Secrets:  []string{"ANTHROPIC_API_KEY", "GITHUB_TOKEN"},
		Secret:   map[string]control.Assertion{"ANTHROPIC_API_KEY": {Placeholder: true}},
		Workload: control.WorkloadPolicy{User: "agent"},
		Egress:   control.Egress{Default: "deny", Allow: []string{"GET api.example.org/v1"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, err := ParseAgent("torno.toml", Template(Draft{Agent: "a"})); err != nil {
		t.Errorf("of nothing: %v", err)
	}
}

func FuzzParseAgent(f *testing.F) {
	f.Add([]byte(wholeAgent))
	f.Add(Template(Draft{Agent: "a"}))
	for _, s := range []string{"[[a]]\nb = [{c = 1}]", "a.b.\"c\" = '''\n'''", "x = 1979-05-27 07:32:00", "\"\\\"\" = \"#\"", "a = [\n1, # ]\n]"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParseAgent("torno.toml", b)
		var e *Errors
		switch {
		case err == nil && !control.ValidAgent(p.Name):
			t.Fatalf("agent %q is accepted", p.Name)
		case err != nil && (!errors.As(err, &e) || len(e.Problems) == 0):
			t.Fatalf("error %v is no *Errors", err)
		}
		if e != nil {
			for _, problem := range e.Problems {
				if problem.Line < 0 || problem.Line > strings.Count(string(b), "\n")+1 {
					t.Fatalf("line %d of %q", problem.Line, b)
				}
			}
		}
	})
}
