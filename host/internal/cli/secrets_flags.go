package cli

import (
	"fmt"
	"strings"

	"torno.internal/protocol/control"
)

// fromFlags overrides what a preset says by what the flags say.
func (e *entry) fromFlags(s *setting) error {
	m := &e.meta
	m.Preset = ""
	if err := e.injectorFromFlags(s); err != nil {
		return err
	}
	if len(s.hosts) == 0 {
		return nil
	}
	m.Expose, m.Audience = control.ExposeNone, nil
	for _, h := range s.hosts {
		origin, err := originOf(h, control.OriginSchemeOf(m.Inject))
		if err != nil {
			return fmt.Errorf("--host %q: %w", h, err)
		}
		m.Audience = append(m.Audience, origin)
	}
	return nil
}

func (e *entry) injectorFromFlags(s *setting) error {
	in := &e.meta.Inject
	switch {
	case s.scheme != "":
		parsed, err := control.ParseScheme(s.scheme)
		if err != nil {
			return fmt.Errorf("--as %q: %w", s.scheme, err)
		}
		*in = parsed
	case len(s.headers) > 0:
		*in = control.Injector{Scheme: control.SchemeHeader}
	case in.Scheme == "":
		*in = control.Injector{Scheme: control.SchemeBearer}
	}
	for _, h := range s.headers {
		f, err := in.ParseHeader(e.key, h)
		if err != nil {
			return fmt.Errorf("--header %q: %w", h, err)
		}
		in.Fields = append(in.Fields, f)
	}
	return nil
}

// originOf returns the origin that --host means for a secret whose origins have that scheme.
func originOf(host, scheme string) (string, error) {
	if !strings.Contains(host, "://") {
		host = scheme + "://" + host
	}
	is, a, err := control.ParseAudience(host)
	if err == nil && is != scheme {
		err = fmt.Errorf("%s:// is wanted", scheme)
	}
	return control.FormatAudience(scheme, a), err
}
