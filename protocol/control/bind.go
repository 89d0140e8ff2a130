package control

// A Bound says which parts of a request a formula binds: whoever changes one changes the text.
type Bound uint8

// The parts, and all of them.
const (
	BindsMethod Bound = 1 << iota
	BindsHost
	BindsPath
	BindsQuery
	BindsContent

	BindsAll = BindsMethod | BindsHost | BindsPath | BindsQuery | BindsContent
)

// Binds returns what the formula binds. It is nothing where two requests could have the same text: where a part of variable length
// does not end at a byte that it can't hold. inner is what {inner:…} is a digest of.
func (f Formula) Binds(inner Formula) Bound {
	var all Bound
	for i, t := range f {
		if !t.fixed() && i+1 < len(f) && !t.endsAt(f[i+1]) {
			return 0
		}
		switch t.Kind {
		case TermMethod:
			all |= BindsMethod
		case TermHost:
			all |= BindsHost
		case TermURL:
			all |= BindsHost | BindsPath | BindsQuery
		case TermTarget:
			all |= BindsPath | BindsQuery
		case TermPath:
			all |= BindsPath
		case TermQuery:
			if t.Text == "" { // sorted, pairs could be moved
				all |= BindsQuery
			}
		case TermBody:
			all |= BindsContent
		case TermInner:
			all |= inner.Binds(nil)
		default:
		}
	}
	return all
}

// Dated reports whether the formula says when the request was made.
func (f Formula) Dated(inner Formula) bool {
	return f.Has(TermTime) || f.Has(TermInner) && inner.Has(TermTime)
}

// fixed reports whether the term always has as many bytes, for one secret.
func (t Term) fixed() bool {
	switch t.Kind {
	case TermLiteral, TermLF, TermNonce, TermInner, TermID, TermPassphrase, TermSignature:
		return true
	case TermBody:
		return t.Hash != ""
	case TermTime:
		return t.Text != TimeSeconds && t.Text != TimeMillis && t.Text != TimeMicros
	default:
		return false
	}
}

// endsAt reports whether what stands in the place of t ends where next begins, whatever both hold.
func (t Term) endsAt(next Term) bool {
	switch next.Kind {
	case TermLiteral:
		return !t.mayHold(next.Text[0])
	case TermLF:
		return !t.mayHold('\n')
	case TermPath, TermTarget:
		return !t.mayHold('/')
	case TermURL:
		return !t.mayHold('h')
	default:
		return false
	}
}

// mayHold reports whether c can stand in the place of t, a term of variable length.
func (t Term) mayHold(c byte) bool {
	switch t.Kind {
	case TermTime:
		return '0' <= c && c <= '9'
	case TermMethod:
		return c > ' ' && c < 0x7f && !isDelimiter(c)
	case TermHost:
		return isAlnum(c) || c == '.' || c == '-' || c == ':' || c == '[' || c == ']' || c == '_'
	case TermPath:
		return c > ' ' && c < 0x7f && c != '?'
	case TermURL, TermTarget, TermQuery:
		return c > ' ' && c < 0x7f
	case TermField, TermMaybeField:
		return c != '\n' && c != '\r' && c != 0
	default:
		return true
	}
}

// isDelimiter reports whether no token holds c (RFC 9110 §5.6.2).
func isDelimiter(c byte) bool {
	switch c {
	case '"', '(', ')', ',', '/', ':', ';', '<', '=', '>', '?', '@', '[', '\\', ']', '{', '}':
		return true
	}
	return false
}

// Bound returns what a signature by h binds.
func (h *HMAC) Bound() Bound { return h.Sign.Binds(h.Inner) }

// Bound returns what the token binds: its strings are apart from one another.
func (j *JWT) Bound() Bound {
	var all Bound
	for f := range j.formulas() {
		all |= f.Binds(nil)
	}
	return all
}
