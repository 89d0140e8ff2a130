package credential

import (
	"slices"
	"strings"
	"sync"

	"torno.internal/protocol/control"
)

// Presets returns what torno knows of services by the names that their secrets usually have. The caller
// owns the result. docs/presets.md is made of it.
func Presets() []control.Preset {
	var all []control.Preset
	for _, p := range slices.Concat(modelPresets(), inferencePresets(), speechPresets(), searchPresets(),
		codePresets(), cloudPresets(), hostingPresets(), saasPresets(), moneyPresets(), watchPresets(), exposedPresets()) {
		all = append(all, perKey(p)...)
	}
	return all
}

// presetsByName are all presets, made once.
var presetsByName = sync.OnceValue(func() map[string]control.Preset {
	all := map[string]control.Preset{}
	for _, p := range Presets() {
		if _, ok := all[p.Name]; !ok {
			all[p.Name] = p
		}
	}
	return all
})

// exposedPresets are names of secrets that are of use inside the VM alone.
func exposedPresets() []control.Preset {
	return []control.Preset{
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

// hole stands in the templates of the tables for the name of the secret in braces.
const hole = "{}"

// perKey fills in the name of the secret where the preset has templates. Templates name one secret, so
// that a preset with several keys becomes one for each: the first keeps its name.
func perKey(p control.Preset) []control.Preset {
	if len(p.Inject.Fields) == 0 {
		return []control.Preset{p}
	}
	var all []control.Preset
	for i, key := range p.Keys {
		q := p
		q.Keys = []string{key}
		if i > 0 {
			q.Name += "-" + strings.ReplaceAll(strings.ToLower(key), "_", "-")
		}
		q.Audience, q.Prefix, q.Paths = slices.Clone(p.Audience), slices.Clone(p.Prefix), slices.Clone(p.Paths)
		q.Also, q.Deny = slices.Clone(p.Also), slices.Clone(p.Deny)
		q.Inject.Fields = slices.Clone(p.Inject.Fields)
		for j := range q.Inject.Fields {
			f := &q.Inject.Fields[j]
			f.Value = strings.Replace(f.Value, hole, "{"+key+"}", 1)
		}
		all = append(all, q)
	}
	return all
}

// asBearer is for services that take the secret as a bearer token (RFC 6750 §2.1).
func asBearer() control.Injector { return control.Injector{Scheme: control.SchemeBearer} }

// intoHeader is for services that take the secret in a field; value has a hole for it.
func intoHeader(name, value string) control.Injector {
	return control.Injector{
		Scheme: control.SchemeHeader,
		Fields: []control.FieldTemplate{{Name: name, Value: value}},
	}
}

// on returns rules for one host, each given as "[METHODS ]/path". A server may take a slash at the end, or
// ".json", for the same: a rule that doesn't end in "**" stands for the path with a slash too.
func on(host string, rules ...string) []string {
	var all []string
	for _, r := range rules {
		methods, path, _ := strings.Cut(r, "/")
		r = methods + host + "/" + path
		all = append(all, r)
		if !strings.HasSuffix(r, "**") {
			all = append(all, r+"/")
		}
	}
	return all
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
