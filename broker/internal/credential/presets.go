package credential

import (
	"slices"

	"torno.internal/protocol/control"
)

// Presets returns what torno knows of services by the names that their secrets usually have. The caller
// owns the result.
func Presets() []control.Preset {
	return []control.Preset{
		{
			Name:        "anthropic",
			Keys:        []string{"ANTHROPIC_API_KEY"},
			Service:     "Anthropic API",
			Audience:    []string{"https://api.anthropic.com"},
			Inject:      intoHeader("x-api-key", "{ANTHROPIC_API_KEY}"),
			Placeholder: "sk-ant-api03-*80",
			Prefix:      []string{"sk-ant-", "sk-ant-api03-"},
			SDKNeedsKey: true,
			Docs:        "https://docs.anthropic.com/en/api/overview",
		},
		{
			Name:        "openai",
			Keys:        []string{"OPENAI_API_KEY"},
			Service:     "OpenAI API",
			Audience:    []string{"https://api.openai.com"},
			Inject:      control.Injector{Scheme: control.SchemeBearer},
			Placeholder: "sk-proj-*80",
			Prefix:      []string{"sk-", "sk-proj-", "sk-svcacct-", "sk-admin-"},
			SDKNeedsKey: true,
			Docs:        "https://platform.openai.com/docs/api-reference/authentication",
		},
		{
			Name:        "github",
			Keys:        []string{"GITHUB_TOKEN", "GH_TOKEN"},
			Service:     "GitHub API",
			Audience:    []string{"https://api.github.com", "https://uploads.github.com"},
			Inject:      control.Injector{Scheme: control.SchemeBearer},
			Placeholder: "ghp_*36",
			Prefix:      []string{"ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"},
			Docs:        "https://docs.github.com/en/rest/authentication",
		},
		{
			Name:    "database-url",
			Keys:    []string{"DATABASE_URL"},
			Service: "a database's address and password, which its driver needs inside the VM",
			Expose:  control.ExposeEnv,
		},
		{
			Name:    "jwt-secret",
			Keys:    []string{"JWT_SECRET"},
			Service: "a key that the application itself signs with inside the VM",
			Expose:  control.ExposeEnv,
		},
	}
}

func intoHeader(name, value string) control.Injector {
	return control.Injector{
		Scheme: control.SchemeHeader,
		Fields: []control.FieldTemplate{{Name: name, Value: value}},
	}
}

// Lookup returns the preset that a secret called key means.
func Lookup(key string) (control.Preset, bool) {
	for _, p := range Presets() {
		if slices.Contains(p.Keys, key) {
			return p, true
		}
	}
	return control.Preset{}, false
}
