package bhttp

import "torno.internal/protocol"

// AppendTo appends the message in its form, with minimal integers, every section and the padding. What
// DecodeMessage would refuse is refused.
func (m *Message) AppendTo(b []byte) ([]byte, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	indicator := byte(indeterminateRequest)
	if m.Request == nil {
		indicator = indeterminateResponse
	}
	if m.Known {
		indicator -= indeterminateRequest - knownRequest
	}
	b = append(b, indicator)
	if r := m.Request; r != nil {
		for _, s := range []string{r.Method, r.Scheme, r.Authority, r.Path} {
			b = appendString(b, s)
		}
		f := r.Fields
		if r.Protocol != "" {
			f = append(protocol.Fields{{Name: fieldProtocol, Value: r.Protocol}}, f...)
		}
		b = m.appendFields(b, f)
	} else {
		for _, r := range append(m.Interim[:len(m.Interim):len(m.Interim)], *m.Response) {
			b = appendVarint(b, uint64(r.Status))
			b = m.appendFields(b, r.Fields)
		}
	}
	if m.Known || len(m.Content) > 0 {
		b = appendVarint(b, uint64(len(m.Content)))
		b = append(b, m.Content...)
	}
	if !m.Known {
		b = append(b, 0)
	}
	b = m.appendFields(b, m.Trailer)
	return append(b, make([]byte, m.Padding)...), nil
}

func (m *Message) appendFields(b []byte, f protocol.Fields) []byte {
	if m.Known {
		n := 0
		for i := range f {
			n += stringLen(f[i].Name) + stringLen(f[i].Value)
		}
		b = appendVarint(b, uint64(n))
	}
	for i := range f {
		b = appendString(b, f[i].Name)
		b = appendString(b, f[i].Value)
	}
	if !m.Known {
		b = append(b, 0)
	}
	return b
}

func stringLen(s string) int { return varintLen(uint64(len(s))) + len(s) }

func (m *Message) check() error {
	switch {
	case (m.Request == nil) == (m.Response == nil):
		return malformed("neither or both of request and response")
	case m.Request != nil && m.Interim != nil:
		return malformed("request with interim responses")
	case m.Padding < 0:
		return malformed("padding of %d", m.Padding)
	case len(m.Interim) > protocol.MaxInterim:
		return tooLarge("number of interim responses", protocol.MaxInterim)
	}
	for i := range m.Interim {
		if r := &m.Interim[i]; !r.Interim() {
			return malformed("interim response with status %d", r.Status)
		} else if err := checkSection(r.Fields); err != nil {
			return err
		}
	}
	if err := checkSection(m.Trailer); err != nil {
		return err
	}
	if r := m.Response; r != nil {
		if r.Status < 200 || r.Status > 599 {
			return malformed("status %d", r.Status)
		}
		return checkSection(r.Fields)
	}
	if err := checkMessageRequest(m.Request); err != nil {
		return err
	}
	for i, s := range []string{m.Request.Method, m.Request.Scheme, m.Request.Authority, m.Request.Path} {
		if len(s) > messageLimits[i] {
			return tooLarge(requestParts[i], messageLimits[i])
		}
	}
	return checkSection(m.Request.Fields)
}

func checkSection(f protocol.Fields) error {
	if len(f) > protocol.MaxFields {
		return tooLarge("number of field lines", protocol.MaxFields)
	}
	n := 0
	for i := range f {
		if err := checkLine(f[i].Name, f[i].Value); err != nil {
			return err
		}
		if n += stringLen(f[i].Name) + stringLen(f[i].Value); n > protocol.MaxHead {
			return tooLarge("field section", protocol.MaxHead)
		}
	}
	return nil
}
