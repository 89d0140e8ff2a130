package upstream

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
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
