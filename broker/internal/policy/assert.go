package policy

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"torno.internal/protocol/control"
)

// CheckAssertions compares what an agent file repeats of its secrets with what is sealed with them.
// Each assertion must be equal or narrower: a file that comes with a repository may not point a key
// elsewhere or expose it. metas are the agent's secrets; one that the file declares but that is not
// among them is the caller's to report. The error joins all findings, each with both sides.
func CheckAssertions(file control.AgentPolicy, metas []control.Meta) error {
	sealed := make(map[string]control.Meta, len(metas))
	var errs []error
	for _, m := range metas {
		if m.Agent != file.Name {
			errs = append(errs, fmt.Errorf("file of agent %q over secret %q of agent %q", file.Name, m.Name, m.Agent))
			continue
		}
		sealed[m.Name] = m
	}
	for _, key := range slices.Sorted(maps.Keys(file.Secret)) {
		m, ok := sealed[key]
		if !ok {
			if !slices.Contains(file.Secrets, key) {
				errs = append(errs, fmt.Errorf("torno.toml: secret.%q speaks of a secret that agent %q does not have", key, file.Name))
			}
			continue
		}
		errs = append(errs, checkAssertion(file.Secret[key], m)...)
	}
	return errors.Join(errs...)
}

// Narrow returns m as the agent file wants it. CheckAssertions must have passed.
func Narrow(a control.Assertion, m control.Meta) control.Meta {
	if len(a.Hosts) > 0 {
		asserted := make(map[Origin]bool, len(a.Hosts))
		for _, h := range a.Hosts {
			if o, err := ParseOrigin(h); err == nil {
				asserted[o] = true
			}
		}
		m.Audience = slices.DeleteFunc(slices.Clone(m.Audience), func(s string) bool {
			o, err := ParseOrigin(s)
			return err != nil || !asserted[o]
		})
	}
	if len(a.Headers) > 0 && m.Inject.Scheme == control.SchemeHeader {
		m.Inject.Fields = slices.DeleteFunc(slices.Clone(m.Inject.Fields), func(t control.FieldTemplate) bool {
			return !slices.ContainsFunc(a.Headers, func(h string) bool { return canonicalHeader(h) == canonicalHeader(headerOf(t)) })
		})
	}
	if a.Expose != nil {
		m.Expose = *a.Expose
	}
	if a.Rotation != "" {
		m.Rotation = a.Rotation
	}
	return m
}

func checkAssertion(a control.Assertion, m control.Meta) []error {
	var errs []error
	wider := func(key string, file, sealed any) {
		errs = append(errs, fmt.Errorf("torno.toml: [secret.%s] %s is %q, wider than %q, which is sealed with the secret"+
			"\nhint: remove the line, or set the secret anew with what you mean", m.Name, key, file, sealed))
	}
	if extra := beyond(a.Hosts, m.Audience, canonicalOrigin); len(extra) > 0 {
		wider("hosts", a.Hosts, m.Audience)
	}
	if headers := sealedHeaders(m); len(beyond(a.Headers, headers, canonicalHeader)) > 0 {
		wider("headers", a.Headers, headers)
	}
	if a.Expose != nil && *a.Expose != m.Expose && *a.Expose != control.ExposeNone {
		wider("expose", *a.Expose, cmp.Or(m.Expose, "none"))
	}
	if a.Rotation == control.RotationFollow && m.Rotation != control.RotationFollow {
		wider("rotation", a.Rotation, cmp.Or(m.Rotation, control.RotationPin))
	}
	if a.Placeholder && m.Expose == control.ExposeEnv {
		errs = append(errs, fmt.Errorf("torno.toml: [secret.%s] placeholder is true, but the secret is sealed with expose %q: "+
			"the variable holds the value itself", m.Name, m.Expose))
	}
	return errs
}

// beyond returns what the file asserts and the seal does not hold. What has no canonical form is
// beyond it.
func beyond(asserted, sealed []string, canonical func(string) string) []string {
	held := make(map[string]bool, len(sealed))
	for _, s := range sealed {
		held[canonical(s)] = true
	}
	return slices.DeleteFunc(slices.Clone(asserted), func(s string) bool {
		c := canonical(s)
		return c != "" && held[c]
	})
}

func canonicalOrigin(s string) string {
	o, err := ParseOrigin(s)
	if err != nil {
		return ""
	}
	return o.String()
}

// sealedHeaders returns the header lines that an injector writes.
func sealedHeaders(m control.Meta) []string {
	if m.Inject.Scheme == control.SchemeBearer {
		return []string{"authorization: Bearer {" + m.Name + "}"}
	}
	lines := make([]string, len(m.Inject.Fields))
	for i, t := range m.Inject.Fields {
		lines[i] = headerOf(t)
	}
	return lines
}

func headerOf(t control.FieldTemplate) string { return strings.ToLower(t.Name) + ": " + t.Value }

// canonicalHeader spells "Name:value" as headerOf does, or returns "" for anything else.
func canonicalHeader(s string) string {
	name, value, ok := strings.Cut(s, ":")
	if !ok || name == "" {
		return ""
	}
	return strings.ToLower(name) + ": " + strings.TrimSpace(value)
}
