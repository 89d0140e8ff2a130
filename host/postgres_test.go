package main_test

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What the databases' roles log in with. It exists in this test and in the broker's store alone.
const rolePassword = "pg-7f3e9a1c5b8d2f4e6a0c9b7d"

// postgresBin is where Debian keeps the server's programs, of whatever version there is.
var postgresBin = func() string {
	all, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil || len(all) == 0 {
		return "/usr/lib/postgresql/bin/"
	}
	return all[len(all)-1] + "/"
}()

// A postgres is PostgreSQL on loopback, which speaks TLS as db.example.org.
type postgres struct {
	t    *testing.T
	dir  string
	port int
	ca   string // PEM file
	as   *syscall.SysProcAttr
}

// roleSQL makes a role for each way to ask for a password, and a database that they may use.
const roleSQL = `
set password_encryption = 'scram-sha-256';
create role app login password '%[1]s';
create role plain login password '%[1]s';
set password_encryption = 'md5';
create role old login password '%[1]s';
create database app owner app;
create database other owner app;
`

const hbaConf = `local all all trust
hostssl all app 127.0.0.1/32 scram-sha-256
hostssl all old 127.0.0.1/32 md5
hostssl all plain 127.0.0.1/32 password
`

// newPostgres makes a database cluster and starts it.
func newPostgres(t *testing.T) *postgres {
	t.Helper()
	if testing.Short() {
		t.Skip("needs real processes; run without -short")
	}
	dir, err := os.MkdirTemp("", "pg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	p := &postgres{t: t, dir: dir, as: &syscall.SysProcAttr{}}
	if os.Getuid() == 0 { // which the server refuses to run as
		u, err := user.Lookup("postgres")
		if err != nil {
			t.Fatalf("%v (try: apt-get install postgresql)", err)
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		p.as.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(dir, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.port = ln.Addr().(*net.TCPAddr).Port
	ln.Close()
	p.command("initdb", "-D", dir+"/data", "-A", "trust", "-N", "-U", "postgres", "--no-instructions", "--locale=C", "-E", "UTF8")
	p.certify()
	p.file("data/pg_hba.conf", hbaConf)
	p.file("data/postgresql.conf", fmt.Sprintf("listen_addresses = '127.0.0.1'\nport = %d\nunix_socket_directories = '%s'\nfsync = off\n"+
		"ssl = on\nssl_cert_file = 'cert.pem'\nssl_key_file = 'key.pem'\nshared_buffers = 16MB\nmax_wal_senders = 0\n", p.port, dir))
	p.start()
	p.command("psql", "-q", "-h", dir, "-p", strconv.Itoa(p.port), "-U", "postgres", "-v", "ON_ERROR_STOP=1", "-c", "select 1", "-f", p.file("roles.sql", fmt.Sprintf(roleSQL, rolePassword)))
	return p
}

// command runs one of PostgreSQL's programs to its end.
func (p *postgres) command(name string, args ...string) {
	p.t.Helper()
	cmd := exec.Command(postgresBin+name, args...)
	cmd.Dir, cmd.SysProcAttr = p.dir, p.as
	if out, err := cmd.CombinedOutput(); err != nil {
		p.t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

// file writes a file that the server alone can read.
func (p *postgres) file(name, content string) string {
	p.t.Helper()
	path := filepath.Join(p.dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		p.t.Fatal(err)
	}
	if c := p.as.Credential; c != nil {
		if err := os.Chown(path, int(c.Uid), int(c.Gid)); err != nil {
			p.t.Fatal(err)
		}
	}
	return path
}

func (p *postgres) certify() {
	p.t.Helper()
	ca, caKey := newCA(p.t)
	leaf := leafFor(p.t, ca, caKey, []string{"db.example.org"})
	key, err := x509.MarshalPKCS8PrivateKey(leaf.PrivateKey)
	if err != nil {
		p.t.Fatal(err)
	}
	encode := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	p.file("data/cert.pem", encode("CERTIFICATE", leaf.Certificate[0]))
	p.file("data/key.pem", encode("PRIVATE KEY", key))
	p.ca = filepath.Join(p.t.TempDir(), "ca.pem")
	if err := os.WriteFile(p.ca, []byte(encode("CERTIFICATE", ca.Raw)), 0o644); err != nil {
		p.t.Fatal(err)
	}
}

func (p *postgres) start() {
	p.t.Helper()
	cmd := exec.Command(postgresBin+"postgres", "-D", p.dir+"/data")
	var log bytes.Buffer
	cmd.Dir, cmd.SysProcAttr, cmd.Stderr, cmd.Stdout = p.dir, p.as, &log, &log
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGQUIT)
		_ = cmd.Wait()
		if p.t.Failed() {
			p.t.Logf("postgres:\n%s", &log)
		}
	})
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		ready := exec.Command(postgresBin+"pg_isready", "-q", "-h", p.dir, "-p", strconv.Itoa(p.port))
		if ready.Run() == nil {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("PostgreSQL does not answer:\n%s", &log)
		}
	}
}

// newPostgresHouse is a house with the password of role app for database app at db.example.org.
func newPostgresHouse(t *testing.T) (*house, *postgres) {
	t.Helper()
	p := newPostgres(t)
	h := newHouse(t, fmt.Sprintf("\n[[upstream]]\nhost = \"db.example.org\"\nport = 5432\ndial = \"127.0.0.1:%d\"\nca = %q\n", p.port, p.ca))
	h.must("secrets", "set", "my-agent", "DATABASE_URL=postgresql://app:"+rolePassword+"@db.example.org/app", "--as", "postgres")
	h.write("torno.toml", "name = \"my-agent\"\nsecrets = [\"DATABASE_URL\"]\n[secret.DATABASE_URL]\nplaceholder = true\n")
	return h, p
}

// psql is the client itself: Debian's is a program that looks for a cluster of this machine.
var psql = postgresBin + "psql -X -q -At "

// S17: psql works with the address that the session's variable holds, and the password is nowhere in it.
func TestMissionS17PostgresPsql(t *testing.T) {
	h, _ := newPostgresHouse(t)
	r := h.sh(`set -e
cd "$HOME"
echo "$DATABASE_URL" | sed 's/:[^:@]*@/:PASSWORD@/'
` + psql + `"$DATABASE_URL" -c 'select current_user, current_database()'
` + psql + `"$DATABASE_URL" -c 'create table t(i int, s text)' -c "insert into t select g, repeat('x', g % 100) from generate_series(1, 100000) g"
` + psql + `"$DATABASE_URL" -c 'copy t to stdout' >out
wc -l <out
` + psql + `"$DATABASE_URL" -c 'truncate t' -c 'copy t from stdin' <out
` + psql + `"$DATABASE_URL" -c 'select count(*), sum(i) from t'
` + psql + `"$DATABASE_URL" -c "select repeat('0123456789abcdef', 64) from generate_series(1, 102400)" | sha256sum | cut -c1-8
for mode in disable prefer require; do ` + psql + `"$(echo "$DATABASE_URL" | sed s/require/$mode/)" -c "select '$mode'"; done
` + psql + `"$(echo "$DATABASE_URL" | sed s/require/verify-full/)&sslrootcert=/etc/ssl/certs/ca-certificates.crt" -c "select 'verify-full'"
`)
	line := strings.Repeat("0123456789abcdef", 64) + "\n"
	want := "postgresql://app:PASSWORD@db.example.org/app?sslmode=require\napp|app\n100000\n100000|5000050000\n" +
		hashOfLines(line, 102400) + "\ndisable\nprefer\nrequire\nverify-full\n"
	if r.stdout != want || strings.Contains(r.stdout+r.stderr, rolePassword) {
		t.Errorf("stdout %q, want %q (exit %d, stderr %q)", r.stdout, want, r.code, r.stderr)
	}
	if out := h.must("audit", "tail", "--last", "100", "--json"); !strings.Contains(out, `"secret":"DATABASE_URL"`) || !strings.Contains(out, `"authority":"db.example.org:5432"`) {
		t.Errorf("the audit does not say which secret was used where:\n%s", out)
	}
	if hwm := peakMemory(t, h.serve.Process.Pid); hwm > 96<<20 {
		t.Errorf("the broker's memory peaked at %d MiB, want at most 96", hwm>>20)
	}
	if r := h.torno("policy", "check", "my-agent", "CONNECT", "postgres://db.example.org"); r.code != 0 || !strings.Contains(r.stdout, "DATABASE_URL version 1") {
		t.Errorf("policy check: exit %d, %q, %q", r.code, r.stdout, r.stderr)
	}
}

func hashOfLines(line string, n int) string {
	cmd := exec.Command("sha256sum")
	cmd.Stdin = strings.NewReader(strings.Repeat(line, n))
	out, err := cmd.Output()
	if err != nil {
		return err.Error()
	}
	return string(out[:8])
}

// S17: psycopg, with parameters, COPY both ways, and a query that is cancelled.
func TestMissionS17PostgresPsycopg(t *testing.T) {
	h, _ := newPostgresHouse(t)
	h.write("agent.py", `import io, os, threading, time
import psycopg2
from psycopg2 import errors

c = psycopg2.connect(os.environ["DATABASE_URL"])
q = c.cursor()
q.execute("select %s::int + 1, %s", (41, "it's"))
print(q.fetchone())
q.execute("create table t(i int, s text)")
q.copy_from(io.StringIO("1\ta\n2\tb\n"), "t")
out = io.StringIO()
q.copy_to(out, "t")
print(repr(out.getvalue()))
c.commit()
big = c.cursor("big")
big.execute("select g from generate_series(1, 50000) g")
print(sum(r[0] for r in big))
c.commit()
began = time.time()
threading.Timer(1, c.cancel).start()
try:
    q.execute("select pg_sleep(120)")
except errors.QueryCanceled:
    print("cancelled", time.time() - began < 60)
`)
	r := h.run("/usr/bin/python3", "agent.py")
	want := "(42, \"it's\")\n'1\\ta\\n2\\tb\\n'\n1250025000\ncancelled True\n"
	if r.stdout != want {
		t.Errorf("stdout %q, want %q (exit %d, stderr %q)", r.stdout, want, r.code, r.stderr)
	}
}

// S17: Node's pg, with the extended protocol and a pool.
func TestMissionS17PostgresNode(t *testing.T) {
	dir := clients(t)
	h, _ := newPostgresHouse(t)
	h.write("agent.cjs", `const { Pool } = require("`+dir+`/node/node_modules/pg");
(async () => {
  const pool = new Pool({ connectionString: process.env.DATABASE_URL });
  const rows = await Promise.all([1, 2, 3].map(n => pool.query('select $1::int * 2 as n', [n])));
  console.log(rows.map(r => r.rows[0].n).join(' '));
  const big = await pool.query("select repeat('x', 1000) as x from generate_series(1, 20000)");
  console.log(big.rows.length);
  await pool.end();
})();
`)
	r := h.withClients(dir, "node", "agent.cjs")
	if r.stdout != "2 4 6\n20000\n" {
		t.Errorf("stdout %q (exit %d, stderr %q)", r.stdout, r.code, r.stderr)
	}
}

// Who is not the secret's user, wants another database, has not the placeholder, or asks for what the server refuses, is
// told so in the database's words; and ways to show the password that are too weak are not gone.
func TestPostgresRefused(t *testing.T) {
	h, _ := newPostgresHouse(t)
	r := h.sh(`for change in s/x/x/ s,/app[?],/other?, s,/app:,/postgres:, s/tornoInert/tornoinert/ s/db.example.org/other.example.org/; do
	` + psql + `"$(echo "$DATABASE_URL" | sed $change)" -c 'select 1' 2>&1 | grep -o '^1$\|FATAL.*'
done`)
	want := "1\nFATAL:  torno: wrong_role\nFATAL:  torno: wrong_role\nFATAL:  torno: wrong_role\nFATAL:  torno: denied\n"
	if r.stdout != want {
		t.Errorf("stdout %q, want %q (stderr %q)", r.stdout, want, r.stderr)
	}
	for _, c := range []struct{ as, want string }{
		{"old", "torno: upstream_auth"}, {"old,auth=md5", "1"}, {"plain,auth=md5", "torno: upstream_auth"}, {"plain,auth=password", "1"},
		{"app,auth=md5", "1"}, {"app,tls=off", "no encryption"}, {"nobody", "no pg_hba.conf entry"},
	} {
		h.must("secrets", "set", "my-agent", "DATABASE_URL="+rolePassword, "--as", "postgres:user="+c.as, "--host", "db.example.org")
		h.write("torno.toml", "name = \"my-agent\"\nsecrets = [\"DATABASE_URL\"]\n")
		role, _, _ := strings.Cut(c.as, ",")
		r := h.sh(psql + "'host=db.example.org user=" + role + " dbname=app' -c 'select 1' 2>&1")
		if !strings.Contains(r.stdout, c.want) || c.want == "1" && r.stdout != "1\n" {
			t.Errorf("--as postgres:user=%s: %q, want %q", c.as, r.stdout, c.want)
		}
	}
}
