// Package trust makes the programs in the guest trust the session's CA: it goes into each store, and
// into each variable, of one table. The CA is good in this session alone, and its key never leaves the
// host.
package trust

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"torno.internal/guest/internal/rootfs"
)

// bundles are files with every root that a distribution trusts; the CA is appended to those that exist.
var bundles = []string{
	"/etc/ssl/certs/ca-certificates.crt",                // Debian, Ubuntu, Arch, Alpine
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // Fedora, RHEL
	"/etc/pki/tls/certs/ca-bundle.crt",                  // older ones
	"/etc/ssl/ca-bundle.pem",                            // openSUSE
	"/etc/ssl/cert.pem",                                 // Alpine, LibreSSL
}

// anchors are directories whose files a distribution's own tool puts into its bundles, so that the CA
// outlives an update of the certificates package.
var anchors = []struct{ dir, file string }{
	{"/usr/local/share/ca-certificates", "torno-session.crt"}, // update-ca-certificates
	{"/etc/pki/ca-trust/source/anchors", "torno-session.pem"}, // update-ca-trust, p11-kit
	{"/etc/ca-certificates/trust-source/anchors", "torno-session.pem"},
}

// hashed are directories where OpenSSL looks a root up by the hash of its name.
var hashed = []string{"/etc/ssl/certs", "/etc/pki/tls/certs"}

// The files that the variables name: the CA alone, and all roots with it.
const (
	bundleDir  = rootfs.Dir
	caFile     = bundleDir + "/ca.pem"
	bundleFile = bundleDir + "/ca-bundle.pem"
)

// variables are for programs that look at no system store. Those that add to a built-in list get the
// CA alone, those that replace it get everything. None is ever empty: an empty AWS_CA_BUNDLE makes
// botocore skip verification altogether.
var variables = []struct{ name, file string }{
	{"NODE_EXTRA_CA_CERTS", caFile},
	{"DENO_CERT", caFile},
	{"SSL_CERT_FILE", bundleFile}, // OpenSSL, Go, Python's ssl, httpx, aiohttp, Ruby, bun, uv
	{"REQUESTS_CA_BUNDLE", bundleFile},
	{"CURL_CA_BUNDLE", bundleFile},
	{"GIT_SSL_CAINFO", bundleFile},
	{"AWS_CA_BUNDLE", bundleFile},
	{"PIP_CERT", bundleFile},
	{"BUNDLE_SSL_CA_CERT", bundleFile},
	{"COMPOSER_CAFILE", bundleFile},
	{"CARGO_HTTP_CAINFO", bundleFile},
	{"CODEX_CA_CERTIFICATE", bundleFile},
	{"CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE", bundleFile},
	{"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", bundleFile},
	{"HTTPLIB2_CA_CERTS", bundleFile},
	{"NIX_SSL_CERT_FILE", bundleFile},
}

// Install puts the CA, one PEM certificate, into every store that the root file system has and returns
// the variables for the workload. The files that the variables name must come to be; a store that
// cannot be written to is logged, because the variables reach most programs without it.
func Install(ca []byte, log *slog.Logger) (env []string, err error) {
	cert, err := parse(ca)
	if err != nil {
		return nil, fmt.Errorf("session CA: %w", err)
	}
	ca = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
	if err := rootfs.MakeDir(); err != nil {
		return nil, err
	}
	if err := rootfs.WriteFile(caFile, ca); err != nil {
		return nil, err
	}
	bundle := withCA(systemRoots(), ca)
	if err := rootfs.WriteFile(bundleFile, bundle); err != nil {
		return nil, err
	}
	java := keyStore(bundle, time.Now())
	if err := rootfs.WriteFile(javaFile, java); err != nil {
		return nil, err
	}
	installStores(cert, ca, java, log)
	for _, v := range variables {
		env = append(env, v.name+"="+v.file)
	}
	return env, nil
}

func parse(ca []byte) (*x509.Certificate, error) {
	block, rest := pem.Decode(ca)
	if block == nil || block.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("want exactly one PEM certificate")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, err
	}
	if !cert.IsCA {
		return nil, errors.New("certificate is not a CA")
	}
	return cert, nil
}

// systemRoots returns the first bundle that exists, or nothing: then the CA is all that there is.
func systemRoots() []byte {
	for _, path := range bundles {
		if roots, err := os.ReadFile(path); err == nil && len(roots) > 0 {
			return roots
		}
	}
	return nil
}

// withCA appends the CA to roots, unless it is there.
func withCA(roots, ca []byte) []byte {
	if bytes.Contains(roots, ca) {
		return roots
	}
	if len(roots) > 0 && roots[len(roots)-1] != '\n' {
		roots = append(roots, '\n')
	}
	return append(roots, ca...)
}

func installStores(cert *x509.Certificate, ca, java []byte, log *slog.Logger) {
	report := func(store string, err error) {
		switch {
		case err == nil:
			log.Debug("trust", "store", store)
		case errors.Is(err, fs.ErrNotExist):
			log.Debug("trust: skipped, not in this root file system", "store", store)
		default:
			log.Warn("trust: store cannot be written to", "store", store, "error", err)
		}
	}
	for _, path := range bundles {
		roots, err := os.ReadFile(path)
		if err == nil {
			err = rootfs.WriteFile(path, withCA(roots, ca))
		}
		report(path, err)
	}
	for _, path := range javaStores {
		_, err := os.Stat(path)
		if err == nil {
			err = rootfs.WriteFile(path, java)
		}
		report(path, err)
	}
	for _, dir := range browserPolicies {
		err := exists(dir)
		if err == nil {
			err = browserPolicy(dir, cert)
		}
		report(dir, err)
	}
	for _, a := range anchors {
		err := exists(a.dir)
		if err == nil {
			err = rootfs.WriteFile(filepath.Join(a.dir, a.file), ca)
		}
		if rootfs.Unwritable(err) {
			// Nor can anybody update the bundles from here, so nothing is lost.
			log.Debug("trust: skipped, read-only", "store", a.dir, "error", err)
			continue
		}
		report(a.dir, err)
	}
	name, err := subjectHash(cert.RawSubject)
	if err != nil {
		report("hashed directories", err)
		return
	}
	for _, dir := range hashed {
		err := exists(dir)
		if err == nil {
			err = link(dir, name)
		}
		report(dir+"/"+name+".0", err)
	}
}

// link makes dir/NAME.N lead to the CA's file, N being the first number that is free.
func link(dir, name string) error {
	for n := range 10 {
		path := fmt.Sprintf("%s/%s.%d", dir, name, n)
		err := os.Symlink(caFile, path)
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
		if target, _ := os.Readlink(path); target == caFile {
			return nil
		}
	}
	return errors.New("ten certificates have the same hash")
}

// browserPolicies are where Chromium and its kin look for policies of the machine. They have roots of their own,
// and read neither the system's bundle nor a variable.
var browserPolicies = []string{"/etc/chromium", "/etc/opt/chrome", "/etc/opt/edge", "/etc/brave"}

// browserPolicy lets the browser whose configuration is in dir trust the CA (policy CACertificates).
func browserPolicy(dir string, cert *x509.Certificate) error {
	managed := filepath.Join(dir, "policies", "managed")
	if err := os.MkdirAll(managed, 0o755); err != nil {
		return err
	}
	policy := fmt.Sprintf("{\"CACertificates\": [%q]}\n", base64.StdEncoding.EncodeToString(cert.Raw))
	return rootfs.WriteFile(filepath.Join(managed, "torno-session.json"), []byte(policy))
}

func exists(dir string) error {
	info, err := os.Stat(dir)
	if err == nil && !info.IsDir() {
		return fs.ErrNotExist
	}
	return err
}
