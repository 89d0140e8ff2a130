package cli

import (
	"context"
	"crypto/x509"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"torno.internal/host/internal/doctor"
	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// proxyTimeout bounds the trial of a proxy.
const proxyTimeout = 3 * time.Second

// ca looks at the authorities of broker.toml.
func (d *diagnosis) ca(context.Context) doctor.Finding {
	operator, _ := d.operator() // what is wrong with it is said
	files := slices.Clone(operator.Egress.CA)
	for _, u := range operator.Upstreams {
		if u.CA != "" {
			files = append(files, u.CA)
		}
	}
	system, err := x509.SystemCertPool()
	if err != nil {
		return failed(err, "")
	}
	return doctor.Roots(time.Now(), system, files...)
}

// proxy looks whether the proxy of broker.toml can be reached, if there is one.
func (d *diagnosis) proxy(ctx context.Context) doctor.Finding {
	operator, err := d.operator()
	switch {
	case err != nil:
		return doctor.Warn("", "broker.toml can't be read")
	case operator.Egress.Proxy == "":
		return doctor.OK("none, upstreams are reached directly")
	case d.offline:
		return doctor.OK("%s, which is not called (--offline)", operator.Egress.Proxy)
	}
	a, err := control.ParseProxy(operator.Egress.Proxy)
	if err != nil {
		return failed(err, "")
	}
	ctx, cancel := context.WithTimeout(ctx, proxyTimeout)
	defer cancel()
	var dialer net.Dialer
	c, err := dialer.DialContext(ctx, "tcp", a.String())
	if err != nil {
		return doctor.Fail("see [egress] proxy in broker.toml", "%s does not answer: %v", operator.Egress.Proxy, err)
	}
	_ = c.Close()
	return doctor.OK("%s answers", operator.Egress.Proxy)
}

// upstreams calls the hosts that secrets are bound to, as far as that needs no proxy: what is behind one, it says itself.
func (d *diagnosis) upstreams(ctx context.Context) doctor.Finding {
	operator, err := d.operator()
	switch {
	case err != nil:
		return doctor.Warn("", "broker.toml can't be read")
	case d.offline:
		return doctor.OK("not called (--offline)")
	case operator.Egress.Proxy != "":
		return doctor.OK("not called: they are behind the proxy")
	}
	c, err := connect()
	if err != nil {
		return failed(err, "")
	}
	if h, err := c.health(ctx); err != nil {
		return doctor.OK("none are known: no broker runs")
	} else if h.Locked {
		return doctor.OK("none are known: the broker is locked")
	}
	var infos []control.SecretInfo
	if err := c.do(ctx, "GET", control.PathSecrets, nil, &infos); err != nil {
		return failed(err, "")
	}
	targets, err := targetsOf(infos, operator)
	if err != nil {
		return failed(err, "see [[upstream]] in broker.toml")
	}
	return doctor.Upstreams(ctx, targets)
}

// targetsOf returns the hosts that secrets are sent to by TLS, each once, as broker.toml says that they are reached.
func targetsOf(infos []control.SecretInfo, operator control.Config) ([]doctor.Target, error) {
	var out []doctor.Target
	for _, i := range infos {
		for _, origin := range i.Audience {
			host, https := strings.CutPrefix(origin, "https://")
			a, err := protocol.ParseAuthority(host, protocol.DefaultPort("https"))
			if !https || err != nil || strings.HasPrefix(host, "*.") {
				continue
			}
			t := doctor.Target{Host: a.Host, Port: a.Port}
			if slices.ContainsFunc(out, func(o doctor.Target) bool { return o.Host == t.Host && o.Port == t.Port }) {
				continue
			}
			if err := direct(&t, operator); err != nil {
				return nil, err
			}
			out = append(out, t)
		}
	}
	return out, nil
}

// direct adds what broker.toml says of the way to a target.
func direct(t *doctor.Target, operator control.Config) error {
	files := operator.Egress.CA
	roots, err := x509.SystemCertPool()
	if err != nil {
		return err
	}
	for _, u := range operator.Upstreams {
		if u.Host == t.Host && u.Port == t.Port {
			t.Dial = u.Dial
			if u.CA != "" {
				roots, files = x509.NewCertPool(), []string{u.CA}
			}
		}
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		roots.AppendCertsFromPEM(b)
	}
	t.Roots = roots
	for _, p := range operator.Egress.AllowPrivate {
		if prefix, err := netip.ParsePrefix(p); err == nil {
			t.Allowed = append(t.Allowed, prefix)
		}
	}
	return nil
}
