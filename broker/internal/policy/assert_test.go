package policy

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"torno.internal/protocol/control"
)

var (
	bearerMeta = control.Meta{
		Agent: "a", Name: "API_KEY", Version: 3,
		Audience: []string{"https://api.example.com", "https://eu.example.com:8443"},
		Inject:   control.Injector{Scheme: control.SchemeBearer},
	}
	headerMeta = control.Meta{
		Agent: "a", Name: "CUSTOM", Audience: []string{"https://api.example.com"}, Rotation: control.RotationFollow,
		Inject: control.Injector{Scheme: control.SchemeHeader, Fields: []control.FieldTemplate{
			{Name: "X-Key", Value: "{CUSTOM}"}, {Name: "x-auth", Value: "Token {CUSTOM}"},
		}},
	}
	exposedMeta = control.Meta{Agent: "a", Name: "DATABASE_URL", Expose: control.ExposeEnv}
)

func expose(e control.Expose) *control.Expose { return &e }

func TestCheckAssertions(t *testing.T) {
	tests := []struct {
		name   string
		secret string
		a      control.Assertion
		want   string // in the error; empty: none
	}{
		{"nothing asserted", "API_KEY", control.Assertion{}, ""},
		{"placeholder", "API_KEY", control.Assertion{Placeholder: true}, ""},
		{"same hosts", "API_KEY", control.Assertion{Hosts: []string{"https://eu.example.com:8443", "API.example.com"}}, ""},
		{"fewer hosts", "API_KEY", control.Assertion{Hosts: []string{"api.example.com:443"}}, ""},
		{"another host", "API_KEY", control.Assertion{Hosts: []string{"api.example.com", "evil.example"}}, `["https://api.example.com" "https://eu.example.com:8443"]`},
		{"another port", "API_KEY", control.Assertion{Hosts: []string{"eu.example.com"}}, "hosts"},
		{"wildcard", "API_KEY", control.Assertion{Hosts: []string{"*.example.com"}}, "hosts"},
		{"plain http", "API_KEY", control.Assertion{Hosts: []string{"http://api.example.com"}}, "hosts"},
		{"nonsense", "API_KEY", control.Assertion{Hosts: []string{""}}, "hosts"},
		{"bearer's header", "API_KEY", control.Assertion{Headers: []string{"Authorization: Bearer {API_KEY}"}}, ""},
		{"another scheme", "API_KEY", control.Assertion{Headers: []string{"Authorization: Basic {API_KEY}"}}, `"authorization: Bearer {API_KEY}"`},
		{"same headers", "CUSTOM", control.Assertion{Headers: []string{"x-auth: Token {CUSTOM}", "x-key:{CUSTOM}"}}, ""},
		{"fewer headers", "CUSTOM", control.Assertion{Headers: []string{"X-KEY: {CUSTOM}"}}, ""},
		{"another header", "CUSTOM", control.Assertion{Headers: []string{"X-Key: {CUSTOM}", "X-Log: {CUSTOM}"}}, "headers"},
		{"header without colon", "CUSTOM", control.Assertion{Headers: []string{"X-Key"}}, "headers"},
		{"exposed", "API_KEY", control.Assertion{Expose: expose(control.ExposeEnv)}, `expose is "env", wider than "none"`},
		{"exposed as sealed", "DATABASE_URL", control.Assertion{Expose: expose(control.ExposeEnv)}, ""},
		{"no longer exposed", "DATABASE_URL", control.Assertion{Expose: expose(control.ExposeNone)}, ""},
		{"placeholder for an exposed one", "DATABASE_URL", control.Assertion{Placeholder: true}, "holds the value itself"},
		{"host for an exposed one", "DATABASE_URL", control.Assertion{Hosts: []string{"db.example"}}, "hosts"},
		{"follow over pin", "API_KEY", control.Assertion{Rotation: control.RotationFollow}, `rotation is "follow", wider than "pin"`},
		{"pin over follow", "CUSTOM", control.Assertion{Rotation: control.RotationPin}, ""},
		{"unknown secret", "OTHER", control.Assertion{}, `agent "a" does not have`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			file := control.AgentPolicy{Name: "a", Secret: map[string]control.Assertion{tt.secret: tt.a}}
			err := CheckAssertions(file, []control.Meta{bearerMeta, headerMeta, exposedMeta})
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

func TestAttack48AgentFileWidens(t *testing.T) {
	file := control.AgentPolicy{Name: "a", Secret: map[string]control.Assertion{
		"API_KEY": {Hosts: []string{"evil.example\x1b[2J"}, Expose: expose(control.ExposeEnv)},
		"CUSTOM":  {Headers: []string{"X-Forwarded-Key: {CUSTOM}"}},
	}}
	foreign := bearerMeta
	foreign.Agent = "prod"
	err := CheckAssertions(file, []control.Meta{bearerMeta, headerMeta, foreign})
	want := `file of agent "a" over secret "API_KEY" of agent "prod"
torno.toml: [secret.API_KEY] hosts is ["evil.example\x1b[2J"], wider than ["https://api.example.com" "https://eu.example.com:8443"], which is sealed with the secret
hint: remove the line, or set the secret anew with what you mean
torno.toml: [secret.API_KEY] expose is "env", wider than "none", which is sealed with the secret
hint: remove the line, or set the secret anew with what you mean
torno.toml: [secret.CUSTOM] headers is ["X-Forwarded-Key: {CUSTOM}"], wider than ["x-key: {CUSTOM}" "x-auth: Token {CUSTOM}"], which is sealed with the secret
hint: remove the line, or set the secret anew with what you mean`
	if err == nil {
		t.Fatal("CheckAssertions succeeds")
	}
	if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Errorf("errors differ (-want +got):\n%s", diff)
	}
}

func TestCheckAssertionsLeavesMissingSecretsToTheCaller(t *testing.T) {
	file := control.AgentPolicy{Name: "a", Secrets: []string{"UNSET"}, Secret: map[string]control.Assertion{"UNSET": {Placeholder: true}}}
	if err := CheckAssertions(file, nil); err != nil {
		t.Error(err)
	}
}

func TestNarrow(t *testing.T) {
	got := Narrow(control.Assertion{Hosts: []string{"eu.example.com:8443"}, Headers: []string{"Authorization: Bearer {API_KEY}"}}, bearerMeta)
	want := bearerMeta
	want.Audience = []string{"https://eu.example.com:8443"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("bearer (-want +got):\n%s", diff)
	}
	got = Narrow(control.Assertion{Headers: []string{"X-AUTH: Token {CUSTOM}"}, Rotation: control.RotationPin}, headerMeta)
	want = headerMeta
	want.Rotation = control.RotationPin
	want.Inject.Fields = headerMeta.Inject.Fields[1:]
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("header (-want +got):\n%s", diff)
	}
	if got := Narrow(control.Assertion{Expose: expose(control.ExposeNone)}, exposedMeta); got.Expose != control.ExposeNone {
		t.Errorf("expose = %q", got.Expose)
	}
	if diff := cmp.Diff(headerMeta, Narrow(control.Assertion{}, headerMeta)); diff != "" {
		t.Errorf("nothing asserted (-want +got):\n%s", diff)
	}
}
