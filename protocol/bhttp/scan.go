package bhttp

import "torno.internal/protocol"

// What stands before the field section of a head.
const (
	controlNone     = 0 // a trailer section
	controlRequest  = 4 // method, scheme, authority, path
	controlResponse = 1 // status
)

// maxScheme is the longest scheme that there is, in bytes.
const maxScheme = len("https")

var requestLimits = [controlRequest]int{protocol.MaxMethod, maxScheme, protocol.MaxAuthority, protocol.MaxPath}

// A scan finds where a head ends by hopping from length to length. It keeps its place between calls,
// so a head that comes one byte at a time costs no more than one that comes at once, and it holds each
// announced length to its limit before any byte of it is waited for.
type scan struct {
	control int // controlNone, controlRequest, controlResponse
	part    int // control data already passed
	lines   int // field lines already passed
	pos     int // bytes already passed
}

// run looks at b, which holds the head from its first byte on, and reports whether all of it, pos
// bytes, is there.
func (s *scan) run(b []byte) (bool, error) {
	for s.part < s.control {
		if done, err := s.runControl(b); !done || err != nil {
			return false, err
		}
	}
	for {
		n, size, err := readMinimal(b[s.pos:])
		if size == 0 || err != nil {
			return false, err
		}
		if n == 0 {
			s.pos += size
			return true, nil
		}
		if s.lines == protocol.MaxFields {
			return false, tooLarge("number of field lines", protocol.MaxFields)
		}
		name, err := skip(b, s.pos, protocol.MaxFieldName, "field name")
		if name == 0 || err != nil {
			return false, err
		}
		value, err := skip(b, name, protocol.MaxFieldValue, "field value")
		if value == 0 || err != nil {
			return false, err
		}
		s.pos = value
		s.lines++
	}
}

func (s *scan) runControl(b []byte) (bool, error) {
	var end int
	var err error
	if s.control == controlResponse {
		var status uint64
		if status, end, err = readMinimal(b[s.pos:]); end > 0 {
			err = checkStatus(status)
		}
	} else {
		end, err = skip(b, s.pos, requestLimits[s.part], requestParts[s.part])
	}
	if end == 0 || err != nil {
		return false, err
	}
	s.pos = end
	s.part++
	return true, nil
}

var requestParts = [controlRequest]string{"method", "scheme", "authority", "path"}

// skip returns where the length-prefixed string at pos ends, or 0 if b does not hold all of it.
func skip(b []byte, pos, limit int, what string) (int, error) {
	n, size, err := readMinimal(b[pos:])
	if size == 0 || err != nil {
		return 0, err
	}
	if n > uint64(limit) {
		return 0, tooLarge(what, limit)
	}
	end := pos + size + int(n)
	if end > protocol.MaxHead {
		return 0, tooLarge("head", protocol.MaxHead)
	}
	if end > len(b) {
		return 0, nil
	}
	return end, nil
}

// A cut takes a scanned head apart. Lengths are read from the bytes, strings are cut from one string
// of them all, so a whole head costs one allocation.
type cut struct {
	b   []byte
	s   string
	pos int
}

func (c *cut) integer() uint64 {
	v, n := readVarint(c.b[c.pos:])
	c.pos += n
	return v
}

func (c *cut) next() string {
	n := int(c.integer())
	c.pos += n
	return c.s[c.pos-n : c.pos]
}

func (c *cut) request(r *protocol.Request) error {
	r.Method, r.Scheme, r.Authority, r.Path = c.next(), c.next(), c.next(), c.next()
	first := c.pos
	if name := c.next(); name == fieldProtocol {
		if r.Protocol = c.next(); r.Protocol == "" {
			return malformed("empty %s", fieldProtocol)
		}
	} else {
		c.pos = first
	}
	if err := checkRequest(r); err != nil {
		return err
	}
	return c.fields(&r.Fields)
}

func (c *cut) fields(f *protocol.Fields) error {
	for {
		name := c.next()
		if name == "" {
			return nil
		}
		value := c.next()
		if err := checkField(name, value); err != nil {
			return err
		}
		*f = append(*f, protocol.Field{Name: name, Value: value})
	}
}
