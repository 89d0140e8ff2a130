package config

import (
	"net/netip"
	"path/filepath"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
	"torno.internal/protocol/transport"
)

// BrokerFile is the name of the operator's file.
const BrokerFile = "broker.toml"

// ParseBroker reads the operator's file; file is its name in errors, which are *Errors, and relative
// paths in it start at file's directory.
func ParseBroker(file string, b []byte) (control.Config, error) {
	t, err := open(file, b)
	if err != nil {
		return control.Config{}, err
	}
	dir := filepath.Dir(file)
	c := control.Config{Listen: readListen(t), Upstreams: readUpstreams(t, dir)}
	egress := t.table("egress")
	c.Egress.AllowPrivate = readPrefixes(egress)
	egress.eachText("ca", func(at []string, path string) {
		if path == "" {
			egress.fail(at, "egress.ca: path is empty")
		}
		c.Egress.CA = append(c.Egress.CA, resolve(dir, path))
	})
	readProxy(egress, &c.Egress, dir)
	egress.done()
	c.Agents = readCeilings(t.table("agents"))
	c.Limits = readLimits(t.table("limits"))
	c.Metrics = readMetrics(t.table("metrics"))
	c.Key = readKey(t.table("key"))
	c.Audit = readAudit(t.table("audit"))
	c.Plugins = readPlugins(t.table("plugins"), dir)
	t.done()
	if err := newErrors(file, t.doc.problems); err != nil {
		return control.Config{}, err
	}
	return c, nil
}

// readListen reads where VMs reach the broker by the kernel's vsock.
func readListen(t *table) string {
	text := t.text("listen")
	if !t.has("listen") {
		return ""
	}
	a, err := transport.ParseAddr(text)
	switch {
	case err != nil:
		t.fail(t.at("listen"), "listen: %v", err)
	case a.Network != transport.VSOCK || a.CID != transport.CIDHost:
		t.fail(t.at("listen"), "listen = %q: VMs reach the host as vsock://2:618", text)
	case a.Port >= 1024:
		t.fail(t.at("listen"), "listen = %q: below port 1024 nobody without privilege can be there first", text)
	}
	return text
}

// readProxy reads how upstreams are reached from networks that are not simply the internet.
func readProxy(t *table, e *control.ConfigEgress, dir string) {
	e.Proxy = t.text("proxy")
	if t.has("proxy") {
		if _, err := control.ParseProxy(e.Proxy); err != nil {
			t.fail(t.at("proxy"), "%v", err)
		}
	}
	e.ProxyAuthorizationFile = resolve(dir, t.text("proxy_authorization_file"))
	e.NoProxy = t.texts("no_proxy")
	e.NAT64 = t.texts("nat64")
	for _, key := range []string{"proxy_authorization_file", "no_proxy"} {
		if t.has(key) && !t.has("proxy") {
			t.fail(t.at(key), "%s is for a proxy, and there is none", key)
		}
	}
}

func readLimits(t *table) control.Limits {
	l := control.Limits{
		ReflectionsPerResponse: t.count("reflections_per_response"),
		ReflectionsPerSession:  t.count("reflections_per_session"),
		AuditRecordsPerSecond:  t.count("audit_records_per_second"),
		AuditMiBPerHour:        t.count("audit_mib_per_hour"),
		AskSeconds:             t.count("ask_seconds"),
		AsksPerSession:         t.count("asks_per_session"),
		Asks:                   t.count("asks"),
	}
	t.done()
	return l
}

func readKey(t *table) control.ConfigKey {
	k := control.ConfigKey{Credential: t.text("credential"), Command: t.texts("command")}
	if t.has("credential") && (k.Credential == "" || k.Credential != filepath.Base(k.Credential) || k.Credential == "..") {
		t.fail(t.at("credential"), "key.credential is %q, not the name of a credential (systemd.exec(5))", k.Credential)
	}
	if t.has("command") && (len(k.Command) == 0 || !filepath.IsAbs(k.Command[0])) {
		t.fail(t.at("command"), "key.command begins with no absolute path")
	}
	t.done()
	return k
}

// minKeepMiB is the least that makes sense: the segment in use, and the one before.
const minKeepMiB = 48

func readAudit(t *table) control.ConfigAudit {
	a := control.ConfigAudit{KeepDays: t.count("keep_days"), KeepMiB: t.count("keep_mib")}
	a.Sync, _ = t.choice("sync", control.AuditSyncInterval, control.AuditSyncAlways)
	if a.KeepMiB > 0 && a.KeepMiB < minKeepMiB {
		t.fail(t.at("keep_mib"), "audit.keep_mib is %d, at least %d are needed", a.KeepMiB, minKeepMiB)
	}
	t.done()
	return a
}

// readMetrics reads where numbers about the broker can be read.
func readMetrics(t *table) control.Metrics {
	m := control.Metrics{Listen: t.text("listen")}
	if t.has("listen") {
		if _, _, err := control.ParseMetricsListen(m.Listen); err != nil {
			t.fail(t.at("listen"), "metrics.listen: %v", err)
		}
	}
	t.done()
	return m
}

func readUpstreams(t *table, dir string) []control.Upstream {
	var out []control.Upstream
	seen := map[protocol.Authority]bool{}
	for _, u := range t.tables("upstream") {
		up := control.Upstream{Host: u.text("host"), Port: u.port("port"), Dial: u.text("dial"), CA: u.text("ca")}
		if !u.has("port") {
			up.Port = protocol.DefaultPort("https")
		}
		host, err := protocol.ParseHost(up.Host)
		switch {
		case !u.has("host"):
			u.fail(u.path, "upstream without host")
		case err != nil:
			u.fail(u.at("host"), "%v", err)
		default:
			up.Host = host
		}
		if a := (protocol.Authority{Host: host, Port: up.Port}); host != "" && seen[a] {
			u.fail(u.path, "upstream %s is there twice", a)
		} else {
			seen[a] = true
		}
		if u.has("dial") {
			if _, err := protocol.ParseAuthority(up.Dial, 0); err != nil {
				u.fail(u.at("dial"), "dial is host:port: %v", err)
			}
		}
		up.CA = resolve(dir, up.CA)
		u.done()
		out = append(out, up)
	}
	return out
}

func readCeilings(t *table) map[string]control.Ceiling {
	var out map[string]control.Ceiling
	for _, name := range t.keys() {
		if !control.ValidAgent(name) {
			t.fail(t.at(name), "[%s]: an agent's name has %s", dotted(t.at(name)), control.AgentGrammar)
		}
		agent := t.table(name)
		c := control.Ceiling{AllowPrivate: readPrefixes(agent)}
		c.Cookies, _ = agent.choice("cookies", control.CookiesStrip, control.CookiesPass)
		c.Presign = agent.truth("presign")
		c.Minting, _ = agent.choice("minting", control.MintingDeny, control.MintingPass)
		c.Placeholders, _ = agent.choice("placeholders", control.PlaceholdersBlock, control.PlaceholdersLog, control.PlaceholdersTerminate)
		if agent.has("egress") {
			e := readEgress(agent.table("egress"))
			c.Egress = &e
		}
		c.Limits = readAgentLimits(agent.table("limits"))
		agent.known = append(agent.known, "egress")
		agent.done()
		if out == nil {
			out = map[string]control.Ceiling{}
		}
		out[name] = c
	}
	return out
}

// readPrefixes reads allow_private, where an address alone would leave open how much was meant.
func readPrefixes(t *table) []string {
	var prefixes []string
	t.eachText("allow_private", func(at []string, s string) {
		p, err := netip.ParsePrefix(s)
		switch {
		case err != nil:
			t.fail(at, "allow_private: %q is no CIDR prefix, as in 10.1.0.0/16", s)
		case p != p.Masked():
			t.fail(at, "allow_private: %q has bits beyond its length; write %s", s, p.Masked())
		}
		prefixes = append(prefixes, s)
	})
	return prefixes
}

func resolve(dir, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}
