package upstream

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// ReadConfig reads what the operator's configuration says about upstreams, and the PEM files that it
// names. All that is wrong comes back joined.
func ReadConfig(file control.Config) (Config, error) {
	var cfg Config
	var errs []error
	seen := make(map[protocol.Authority]bool, len(file.Upstreams))
	for i, u := range file.Upstreams {
		o, err := readOverride(u)
		if err == nil && seen[o.Authority] {
			err = fmt.Errorf("%v has one already", o.Authority)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("upstream %d: %w", i+1, err))
		}
		seen[o.Authority] = true
		cfg.Overrides = append(cfg.Overrides, o)
	}
	var err error
	if cfg.AllowPrivate, err = ParsePrefixes(file.Egress.AllowPrivate); err != nil {
		errs = append(errs, fmt.Errorf("egress allow_private: %w", err))
	}
	if cfg.NAT64, err = ParseNAT64(file.Egress.NAT64); err != nil {
		errs = append(errs, fmt.Errorf("egress nat64: %w", err))
	}
	if cfg.Proxy, err = readProxy(file.Egress); err != nil {
		errs = append(errs, fmt.Errorf("egress proxy: %w", err))
	}
	if len(file.Egress.CA) > 0 {
		if cfg.Roots, err = x509.SystemCertPool(); err != nil {
			errs = append(errs, fmt.Errorf("reading the host's roots: %w", err))
			cfg.Roots = x509.NewCertPool()
		}
		for _, name := range file.Egress.CA {
			if err := addPEM(cfg.Roots, name); err != nil {
				errs = append(errs, fmt.Errorf("egress ca: %w", err))
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return Config{}, err
	}
	return cfg, nil
}

func readOverride(u control.Upstream) (Override, error) {
	port := u.Port
	if port == 0 {
		port = protocol.DefaultPort("https")
	}
	host, err := protocol.ParseHost(u.Host)
	if err != nil {
		return Override{}, err
	}
	o := Override{Authority: protocol.Authority{Host: host, Port: port}, Dial: u.Dial}
	if u.Dial != "" {
		if _, err := protocol.ParseAuthority(u.Dial, port); err != nil {
			return Override{}, fmt.Errorf("dial: %w", err)
		}
	}
	if u.CA != "" {
		o.Roots = x509.NewCertPool()
		if err := addPEM(o.Roots, u.CA); err != nil {
			return Override{}, fmt.Errorf("ca: %w", err)
		}
	}
	return o, nil
}

func addPEM(pool *x509.CertPool, name string) error {
	pem, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	if !pool.AppendCertsFromPEM(pem) {
		return fmt.Errorf("%q holds no certificate in PEM", name)
	}
	return nil
}

// readProxy reads what is said of a proxy, and the file that holds its credential.
func readProxy(e control.ConfigEgress) (*Proxy, error) {
	if e.Proxy == "" {
		if e.ProxyAuthorizationFile != "" || len(e.NoProxy) > 0 {
			return nil, errors.New("proxy_authorization_file and no_proxy are for a proxy")
		}
		return nil, nil
	}
	a, err := control.ParseProxy(e.Proxy)
	if err != nil {
		return nil, err
	}
	p := &Proxy{Authority: a}
	for _, s := range e.NoProxy {
		d, err := ParseDirect(s)
		if err != nil {
			return nil, fmt.Errorf("no_proxy: %w", err)
		}
		p.Direct = append(p.Direct, d)
	}
	if e.ProxyAuthorizationFile != "" {
		if p.Authorization, err = readAuthorization(e.ProxyAuthorizationFile); err != nil {
			return nil, fmt.Errorf("proxy_authorization_file: %w", err)
		}
	}
	return p, nil
}

// readAuthorization reads one line, from a file that only its owner can read.
func readAuthorization(name string) (secret.Value, error) {
	info, err := os.Stat(name)
	if err != nil {
		return secret.Value{}, err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return secret.Value{}, fmt.Errorf("%q has mode %04o; others must not read it (chmod 600)", name, mode)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return secret.Value{}, err
	}
	line := bytes.TrimRight(b, "\r\n")
	if len(line) == 0 || !protocol.IsFieldValue(string(line)) {
		secret.Wipe(b)
		return secret.Value{}, fmt.Errorf("%q is not one line such as: Basic dXNlcjpwYXNz", name)
	}
	return secret.New(line), nil
}

// ParseDirect reads one entry of no_proxy: a name, *.name, an address or a CIDR prefix.
func ParseDirect(s string) (Direct, error) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return Direct{Prefix: p.Masked()}, nil
	}
	name, below := strings.CutPrefix(s, "*.")
	host, err := protocol.ParseHost(name)
	if err != nil {
		return Direct{}, err
	}
	if addr, ok := (protocol.Authority{Host: host}).IP(); ok {
		return Direct{Prefix: netip.PrefixFrom(addr, addr.BitLen())}, nil
	}
	if below {
		host = "." + host
	}
	return Direct{Host: host}, nil
}

// ParseNAT64 reads prefixes of translated addresses, whose lengths RFC 6052 §2.2 lists.
func ParseNAT64(cidrs []string) ([]netip.Prefix, error) {
	prefixes, err := ParsePrefixes(cidrs)
	for _, p := range prefixes {
		if _, ok := nat64Positions[p.Bits()]; !ok || !p.Addr().Is6() {
			err = errors.Join(err, fmt.Errorf("prefix %v: an IPv6 prefix of 32, 40, 48, 56, 64 or 96 bits is wanted", p))
		}
	}
	return prefixes, err
}

// ParsePrefixes reads CIDR prefixes, all errors joined.
func ParsePrefixes(cidrs []string) ([]netip.Prefix, error) {
	var prefixes []netip.Prefix
	var errs []error
	for _, s := range cidrs {
		p, err := netip.ParsePrefix(s)
		switch {
		case err != nil:
		case p.Addr().Is4In6():
			err = fmt.Errorf("prefix %q: write IPv4 addresses as such", s)
		case p != p.Masked():
			err = fmt.Errorf("prefix %q has bits set behind its length; did you mean %v?", s, p.Masked())
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		prefixes = append(prefixes, p)
	}
	return prefixes, errors.Join(errs...)
}
