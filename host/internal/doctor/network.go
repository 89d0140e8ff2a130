package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"
)

// expirySoon is how long before its end a certificate is warned of.
const expirySoon = 14 * 24 * time.Hour

// Roots looks at files with certificates of authorities, and whether the machine has any of its own.
func Roots(now time.Time, system *x509.CertPool, files ...string) Finding {
	if system == nil || system.Equal(x509.NewCertPool()) {
		return Fail("apt-get install ca-certificates", "this machine trusts no authority, so no upstream's certificate verifies")
	}
	for _, file := range files {
		certs, err := readCerts(file)
		if err != nil {
			return Fail("see ca in broker.toml", "%v", err)
		}
		for _, c := range certs {
			switch {
			case now.After(c.NotAfter) || now.Before(c.NotBefore):
				return Fail("get the new one, or remove it", "%s: %q is valid from %s to %s", file, c.Subject, c.NotBefore.Format(time.DateOnly), c.NotAfter.Format(time.DateOnly))
			case !c.IsCA:
				return Fail("the authority's certificate belongs there", "%s: %q is no authority's", file, c.Subject)
			case now.Add(expirySoon).After(c.NotAfter):
				return Warn("get the new one", "%s: %q ends on %s", file, c.Subject, c.NotAfter.Format(time.DateOnly))
			}
		}
	}
	return OK("the system's, and %d files of broker.toml", len(files))
}

// readCerts reads a file of PEM.
func readCerts(file string) ([]*x509.Certificate, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var certs []*x509.Certificate
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, fmt.Errorf("%s has no certificate", file)
	}
	return certs, nil
}

// A Target is an upstream that an agent's secret is for.
type Target struct {
	Host  string // name
	Port  uint16
	Dial  string // where it really is, host:port; "": as its name says
	Roots *x509.CertPool
	// Allowed are addresses beside the public internet's that the broker dials.
	Allowed []netip.Prefix
}

const (
	reachTimeout = 5 * time.Second // for one upstream
	maxTargets   = 32
)

// Upstreams looks whether each target answers with a certificate that verifies.
func Upstreams(ctx context.Context, targets []Target) Finding {
	if len(targets) == 0 {
		return OK("none: no secret is bound to a host")
	}
	tried := targets[:min(len(targets), maxTargets)]
	problems := make([]error, len(tried))
	var all sync.WaitGroup
	for i, t := range tried {
		all.Go(func() { problems[i] = t.reach(ctx) })
	}
	all.Wait()
	bad := 0
	first := ""
	for i, err := range problems {
		if err != nil {
			if bad++; first == "" {
				first = fmt.Sprintf("%s: %v", tried[i].Host, err)
			}
		}
	}
	if bad > 0 {
		return Warn(reachHint(problems), "%d of %d can't be used; %s", bad, len(tried), first)
	}
	if len(targets) > len(tried) {
		return OK("%d answer, with certificates that verify; %d more were not tried", len(tried), len(targets)-len(tried))
	}
	return OK("%d answer, with certificates that verify", len(tried))
}

// errPrivate is of names that lead to addresses which the broker does not dial.
var errPrivate = errors.New("leads to an address that is not the public internet's, which the broker refuses")

// reach does what the broker does to send a request, but for sending one.
func (t Target) reach(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, reachTimeout)
	defer cancel()
	address := t.Dial
	if address == "" {
		found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", t.Host)
		if err != nil {
			return err
		}
		for _, a := range found {
			a = a.Unmap()
			special := a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsUnspecified() || a.IsMulticast()
			if special && !slices.ContainsFunc(t.Allowed, func(p netip.Prefix) bool { return p.Contains(a) }) {
				return errPrivate
			}
		}
		address = net.JoinHostPort(t.Host, fmt.Sprint(t.Port))
	}
	d := tls.Dialer{Config: &tls.Config{ServerName: t.Host, RootCAs: t.Roots, MinVersion: tls.VersionTLS12}}
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return c.Close()
}

// reachHint says what to do about the first problem that it knows.
func reachHint(problems []error) string {
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var dns *net.DNSError
	for _, err := range problems {
		switch {
		case errors.Is(err, errPrivate):
			return "[[upstream]] dial, or allow_private, in broker.toml"
		case errors.As(err, &unknown):
			return "does a proxy open TLS here? [egress] ca in broker.toml takes its authority"
		case errors.As(err, &invalid):
			return "is the clock right?"
		case errors.As(err, &dns):
			return "does this machine resolve names? if only a proxy does: [egress] proxy in broker.toml"
		}
	}
	return "is there a way out of this network? [egress] proxy in broker.toml names one"
}
