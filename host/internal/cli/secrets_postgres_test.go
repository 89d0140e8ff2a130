package cli

import (
	"strings"
	"testing"

	"torno.internal/protocol/control"
)

// An address is taken apart: only the password is the secret, and it is shown nowhere.
func TestSetPostgres(t *testing.T) {
	const password = "p@ss-0123456789abcdef"
	escaped := strings.Replace(password, "@", "%40", 1)
	for _, c := range []struct {
		value, flags   string
		origin, params string // or a part of the error, and its code in params
	}{
		{"postgresql://app:" + escaped + "@db.example.org/main", "--as postgres", "postgres://db.example.org", "postgres:database=main,user=app"},
		{"postgres://app:" + escaped + "@db.example.org:6432/main?sslmode=verify-full", "--as postgres", "postgres://db.example.org:6432", "postgres:database=main,user=app"},
		{"postgres://app:" + escaped + "@db.example.org", "--as postgres:auth=md5", "postgres://db.example.org", "postgres:auth=md5,user=app"},
		{"postgres://app:" + escaped + "@db.example.org/main?sslmode=disable", "--as postgres:tls=off", "postgres://db.example.org", "postgres:database=main,tls=off,user=app"},
		{password, "--as postgres:user=app --host db.example.org", "postgres://db.example.org", "postgres:user=app"},
		{"postgres://app:" + escaped + "@db.example.org/main?sslmode=disable", "--as postgres", "sslmode=disable", "1"},
		{"postgres://app:" + escaped + "@db.example.org/main", "--as postgres --host other.example.org", "leave --host out", "1"},
		{"postgres://app@db.example.org/main", "--as postgres", "no password", "1"},
		{"postgres://:" + escaped + "@db.example.org/main", "--as postgres", "no user", "1"},
		{"postgres://app:" + escaped + "@a,b/main", "--as postgres", "several hosts", "1"},
		{"postgres://app:" + escaped + "@/main", "--as postgres", "no host", "1"},
		{"postgres://app:p%zz" + escaped + "@db/main", "--as postgres", "no URL", "1"},
		{password, "--as postgres:user=app", "say where it may be sent", "2"},
		{password, "--as postgres --host db.example.org", "needs user", "2"},
		{password, "--as postgres:user=app,tls=maybe --host db.example.org", "none of verify-full", "2"},
	} {
		b := newBroker(t)
		r := torno(t, "", append([]string{"secrets", "set", "my-agent", "DATABASE_URL=" + c.value}, strings.Fields(c.flags)...)...)
		if strings.Contains(r.out+r.errOut, "0123456789abcdef") {
			t.Errorf("%s: the password is shown: %+v", c.flags, r)
		}
		if len(c.params) == 1 {
			if string(rune('0'+r.code)) != c.params || !strings.Contains(r.errOut, c.origin) {
				t.Errorf("%s: %+v, want %s with %q", c.flags, r, c.params, c.origin)
			}
			continue
		}
		if r.code != 0 || len(b.metas) != 1 {
			t.Errorf("%s: %+v", c.flags, r)
			continue
		}
		m := b.metas[0]
		if m.Audience[0] != c.origin || m.Inject.String() != c.params || m.Expose != control.ExposeNone || b.values["DATABASE_URL"] != password {
			t.Errorf("%s: goes to %v as %s", c.flags, m.Audience, m.Inject)
		}
		if r := torno(t, "", "secrets", "set", "my-agent", "DATABASE_URL=another-0123456789abcdef"); r.code != 0 || b.values["DATABASE_URL"] != "another-0123456789abcdef" {
			t.Errorf("%s: a new password: %+v", c.flags, r)
		}
	}
}
