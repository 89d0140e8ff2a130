package control

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"

	"torno.internal/protocol"
)

// Limits on one secret.
const (
	MaxValue     = 64 << 10 // bytes
	MaxAudience  = 64       // origins
	MaxTemplates = 8        // fields that one secret is put into
	MaxTemplate  = 1 << 10  // bytes of one template
	MaxReplace   = 8        // places
	MaxBy        = 128      // bytes
)

// maxExpiry is the last moment that the encoding of a Meta can hold, with room to spare.
var maxExpiry = time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)

// PlaceholderMark stands in every placeholder, in every session, so that one is known for what it is
// wherever it turns up. It is as good as never part of a real value.
const PlaceholderMark = "tornoInert"

// CheckMeta reports what makes m unusable. Who seals a secret asks it before sealing and the broker
// before storing, so that a key which could not be used is refused when it is set and not in the middle
// of a run.
func CheckMeta(m Meta) error {
	switch {
	case !ValidAgent(m.Agent):
		return fmt.Errorf("agent %q: a name is %s", m.Agent, AgentGrammar)
	case !ValidKey(m.Name):
		return fmt.Errorf("secret %q: a name is %s", m.Name, KeyGrammar)
	case m.Version < 1:
		return fmt.Errorf("version %d is not 1 or more", m.Version)
	case m.Rotation != "" && m.Rotation != RotationPin && m.Rotation != RotationFollow:
		return fmt.Errorf("rotation %q is neither %q nor %q", m.Rotation, RotationPin, RotationFollow)
	case m.Preset != "" && !protocol.IsToken(m.Preset):
		return fmt.Errorf("preset %q is not a preset's name", m.Preset)
	case !m.Expires.IsZero() && !m.Expires.After(m.Created):
		return fmt.Errorf("it would expire at %v, which is past", m.Expires.Format(time.DateTime))
	case m.Expires.After(maxExpiry):
		return fmt.Errorf("it would expire in the year %d; leave the date out for never", m.Expires.Year())
	}
	if err := errors.Join(CheckBy(m.By), checkSource(&m)); err != nil {
		return err
	}
	switch m.Expose {
	case ExposeEnv:
		if len(m.Audience) > 0 || m.Inject.Scheme != "" || len(m.Inject.Fields)+len(m.Inject.Params) > 0 {
			return errors.New("an exposed secret is a variable in the VM; it has neither hosts nor headers")
		}
		if len(m.Replace) > 0 {
			return errors.New("an exposed secret is a variable in the VM; it has no placeholder")
		}
		if m.Rotation == RotationFollow {
			return errors.New("an exposed secret is a variable in the VM, which can't follow a new version; leave rotation out")
		}
		return nil
	case ExposeNone:
		return errors.Join(checkAudience(m.Audience, OriginSchemeOf(m.Inject)), checkInjector(m.Name, m.Inject), checkReplace(m))
	}
	return fmt.Errorf("expose %q is not %q", m.Expose, ExposeEnv)
}

// CheckBy accepts what may stand in Meta.By: visible ASCII and spaces, at most MaxBy bytes of it.
func CheckBy(by string) error {
	if len(by) > MaxBy || badFieldByte([]byte(by)) >= 0 {
		return fmt.Errorf("what set it is not said in at most %d visible characters", MaxBy)
	}
	return nil
}

// checkReplace accepts places in ascending order, each once.
func checkReplace(m Meta) error {
	places := m.Replace
	if m.Inject.Scheme == SchemeContent && len(places) == 0 {
		return errors.New("the content scheme puts a secret where its placeholder stands in content; name that with --placeholder-in")
	}
	switch m.Inject.Scheme {
	case SchemeBearer, SchemeHeader, SchemeBasic, SchemeGit, SchemeQuery, SchemePath, SchemeCookie, SchemeContent:
	default:
		if len(places) > 0 {
			return fmt.Errorf("the secret is never sent by the %s scheme, so it is not for content either", m.Inject.Scheme)
		}
	}
	for i, p := range places {
		switch p {
		case PlaceForm, PlaceJSON:
		default:
			return fmt.Errorf("place %q is neither %q nor %q", p, PlaceForm, PlaceJSON)
		}
		if i > 0 && places[i-1] >= p {
			return fmt.Errorf("places %q are not in order, each once", places)
		}
	}
	return nil
}

func checkAudience(audience []string, scheme string) error {
	if len(audience) == 0 {
		return errors.New("no host that the secret may be sent to; name it with --host")
	}
	if len(audience) > MaxAudience {
		return fmt.Errorf("%d hosts, at most %d fit", len(audience), MaxAudience)
	}
	seen := make(map[protocol.Authority]bool, len(audience))
	for _, s := range audience {
		is, a, err := ParseAudience(s)
		switch {
		case err != nil:
			return err
		case is != scheme:
			return fmt.Errorf("origin %q is not one of %s", s, scheme)
		}
		if want := FormatAudience(scheme, a); s != want {
			return fmt.Errorf("origin %q is not in its canonical form %q", s, want)
		}
		if seen[a] {
			return fmt.Errorf("origin %q stands twice", s)
		}
		seen[a] = true
	}
	return nil
}

func checkFields(key string, fields []FieldTemplate) error {
	if len(fields) == 0 || len(fields) > MaxTemplates {
		return fmt.Errorf("%d headers; the header scheme takes 1 to %d", len(fields), MaxTemplates)
	}
	seen := make(map[string]bool, len(fields))
	for _, f := range fields {
		if err := checkFieldName(f.Name); err != nil {
			return err
		}
		if _, err := ParseTemplate(key, f.Value); err != nil {
			return fmt.Errorf("header %q: %w", f.Name, err)
		}
		if lower := strings.ToLower(f.Name); seen[lower] {
			return fmt.Errorf("header %q stands twice", f.Name)
		} else {
			seen[lower] = true
		}
	}
	return nil
}

// CheckValue reports what makes value unusable for the secret that m, which has passed CheckMeta,
// describes. Its errors never quote the value. It is asked when a secret is set and again each time that
// a credential is made of it, because between the two lies a file.
func CheckValue(m Meta, value []byte) error {
	if err := CheckAnyValue(value); err != nil || m.Expose == ExposeEnv {
		return err
	}
	return schemes[m.Inject.Scheme].value(m.Inject, value)
}

// CheckSealed reports what makes value unusable as what is sealed for m: of a secret that is kept elsewhere that is where.
func CheckSealed(m Meta, value []byte) error {
	if m.Source == "" {
		return CheckValue(m, value)
	}
	if string(value) != m.Source {
		return errors.New("what is sealed is not where the secret is kept")
	}
	return nil
}

// CheckAnyValue is the part of CheckValue that holds for every secret.
func CheckAnyValue(value []byte) error {
	switch {
	case len(value) == 0:
		return errors.New("the value is empty")
	case len(value) > MaxValue:
		return fmt.Errorf("the value has %d bytes, at most %d fit", len(value), MaxValue)
	case bytes.IndexByte(value, 0) >= 0:
		return errors.New("the value holds a NUL byte")
	case bytes.Contains(value, []byte(PlaceholderMark)):
		return errors.New("the value is a placeholder that torno made, not the real one")
	}
	return nil
}
