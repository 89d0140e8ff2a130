package main_test

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// curl pins the server's key: through a tunnel rule its TLS reaches the server as it is, also through the explicit proxy; with any
// other rule it ends in the guest, which the pin does not take. A tunnel that the broker refuses ends in an answer that says why.
func TestClientCurlPinned(t *testing.T) {
	const host = "pinned.example"
	up := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s", r.Host, r.Header.Get("Authorization"))
	}))
	cert, ca := issue(t, []string{host, "denied.example"})
	up.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2", "http/1.1"}}
	up.StartTLS()
	t.Cleanup(up.Close)
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	pin := "sha256//" + base64.StdEncoding.EncodeToString(sum[:])
	toml := ""
	for _, name := range []string{host, "denied.example"} {
		toml += fmt.Sprintf("\n[[upstream]]\nhost = %q\ndial = %q\n", name, up.Listener.Addr())
	}
	h := newHouse(t, toml)
	if err := os.WriteFile(filepath.Join(h.work, "ca.pem"), ca, 0o644); err != nil {
		t.Fatal(err)
	}
	curl := "curl -sS -m 60 --cacert ca.pem -H 'Authorization: own' --pinnedpubkey '" + pin + "' "
	run := func(egress, command, want string) {
		t.Helper()
		h.write("torno.toml", "name = \"my-agent\"\n[egress]\n"+egress+"\n")
		if r := h.sh(command); r.stdout != want {
			t.Errorf("%s, %s: stdout %q, want %q; exit %d, stderr %q", egress, command, r.stdout, want, r.code, r.stderr)
		}
	}
	run(`tunnel = ["pinned.example"]`, curl+"https://pinned.example/; echo; "+curl+"-x \"$TORNO_PROXY\" https://pinned.example/", "pinned.example own\npinned.example own")
	run(`tunnel = ["pinned.example"]`, "curl -sS -m 60 --cacert ca.pem --pinnedpubkey 'sha256//"+strings.Repeat("A", 43)+"=' https://pinned.example/ 2>/dev/null || echo $?", "90\n")
	run(`allow = ["pinned.example"]`, curl+"https://pinned.example/ 2>/dev/null || echo $?", "90\n") // the guest's key is not the pinned one
	run("tunnel = [\"denied.example\"]\ndeny = [\"denied.example\"]", curl+"https://denied.example/ 2>/dev/null || echo $?; curl -sS -o /dev/null -w '%{http_code} %header{torno-reason}' https://denied.example/",
		"90\n403 denied_by_rule")
	run(`tunnel = ["10.1.2.3"]`, "curl -sS -o /dev/null -w '%{http_code} %header{torno-reason}' https://10.1.2.3/", "403 denied") // and no tunnel to a private address
	tunnels := 0
	for _, e := range h.query() {
		if e.Method == "CONNECT" && e.Authority == "pinned.example:443" && e.End != nil && e.End.Status == 200 {
			tunnels++
		}
		if e.Authority == "10.1.2.3:443" && e.Method == "CONNECT" && (e.End == nil || e.End.Reason != "forbidden_address") {
			t.Errorf("a private address: %+v", e)
		}
	}
	if tunnels != 3 {
		t.Errorf("%d tunnels are recorded", tunnels)
	}
}
