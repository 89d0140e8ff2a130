package audit

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"torno.internal/protocol/control"
)

// A member of a line: its name, and where its value stands in a record, as *string, *uint64, *int64, *int, *bool,
// *[]string, *[]uint64 or *time.Time.
type member struct {
	name string
	at   func(*control.AuditRecord) any
}

// members are all there are, in the order in which they stand in a line. A member that is zero, false or empty does
// not stand there, but for the first four and for inEveryEnd.
var members = []member{
	{"seq", func(r *control.AuditRecord) any { return &r.Seq }},
	{"time", func(r *control.AuditRecord) any { return &r.Time }},
	{"prev", func(r *control.AuditRecord) any { return &r.Prev }},
	{"type", func(r *control.AuditRecord) any { return &r.Type }},
	{"begin", func(r *control.AuditRecord) any { return &r.Begin }},
	{"session", func(r *control.AuditRecord) any { return &r.Session }},
	{"agent", func(r *control.AuditRecord) any { return &r.Agent }},
	{"event", func(r *control.AuditRecord) any { return &r.Event }},
	{"by", func(r *control.AuditRecord) any { return &r.By }},
	{"method", func(r *control.AuditRecord) any { return &r.Method }},
	{"protocol", func(r *control.AuditRecord) any { return &r.Protocol }},
	{"scheme", func(r *control.AuditRecord) any { return &r.Scheme }},
	{"authority", func(r *control.AuditRecord) any { return &r.Authority }},
	{"path", func(r *control.AuditRecord) any { return &r.Path }},
	{"path_bytes", func(r *control.AuditRecord) any { return &r.PathBytes }},
	{"path_sha256", func(r *control.AuditRecord) any { return &r.PathSHA256 }},
	{"fields", func(r *control.AuditRecord) any { return &r.Fields }},
	{"dialled", func(r *control.AuditRecord) any { return &r.Dialled }},
	{"verdict", func(r *control.AuditRecord) any { return &r.Verdict }},
	{"list", func(r *control.AuditRecord) any { return &r.List }},
	{"rule", func(r *control.AuditRecord) any { return &r.Rule }},
	{"approval", func(r *control.AuditRecord) any { return &r.Approval }},
	{"reason", func(r *control.AuditRecord) any { return &r.Reason }},
	{"secret", func(r *control.AuditRecord) any { return &r.Secret }},
	{"version", func(r *control.AuditRecord) any { return &r.Version }},
	{"fetched", func(r *control.AuditRecord) any { return &r.Fetched }},
	{"plugin", func(r *control.AuditRecord) any { return &r.Plugin }},
	{"placeholders", func(r *control.AuditRecord) any { return &r.Placeholders }},
	{"sha256", func(r *control.AuditRecord) any { return &r.SHA256 }},
	{"commit", func(r *control.AuditRecord) any { return &r.Commit }},
	{"manifest", func(r *control.AuditRecord) any { return &r.Manifest }},
	{"through", func(r *control.AuditRecord) any { return &r.Through }},
	{"count", func(r *control.AuditRecord) any { return &r.Count }},
	{"interrupted", func(r *control.AuditRecord) any { return &r.Interrupted }},
	{"status", func(r *control.AuditRecord) any { return &r.Status }},
	{"up", func(r *control.AuditRecord) any { return &r.Up }},
	{"down", func(r *control.AuditRecord) any { return &r.Down }},
	{"dial_us", func(r *control.AuditRecord) any { return &r.DialMicros }},
	{"head_us", func(r *control.AuditRecord) any { return &r.HeadMicros }},
	{"us", func(r *control.AuditRecord) any { return &r.Micros }},
	{"upstream", func(r *control.AuditRecord) any { return &r.Upstream }},
	{"via", func(r *control.AuditRecord) any { return &r.Via }},
	{"masked", func(r *control.AuditRecord) any { return &r.Masked }},
	{"aborted", func(r *control.AuditRecord) any { return &r.Aborted }},
	{"open", func(r *control.AuditRecord) any { return &r.Open }},
	{"open_more", func(r *control.AuditRecord) any { return &r.OpenMore }},
	{"ed25519_key", func(r *control.AuditRecord) any { return &r.Ed25519Key }},
	{"mldsa65_key", func(r *control.AuditRecord) any { return &r.MLDSA65Key }},
	{"ed25519", func(r *control.AuditRecord) any { return &r.Ed25519Sig }},
	{"mldsa65", func(r *control.AuditRecord) any { return &r.MLDSA65Sig }},
}

// inEveryEnd are the members that stand in the end of every exchange that was not interrupted, also when they are zero.
var inEveryEnd = []string{"status", "up", "down", "us"}

// types are what a line may be.
var types = []string{control.AuditBegin, control.AuditEnd, control.AuditRefused, control.AuditEvent, control.AuditCheckpoint}

// Decode reads one line, without its end, as docs/audit.md describes it. It takes nothing else: each record has one
// spelling.
func Decode(line []byte) (control.AuditRecord, error) {
	var r control.AuditRecord
	if len(line) >= maxLine {
		return r, fmt.Errorf("a line of %d bytes, at most %d are read", len(line), maxLine)
	}
	rest, ok := bytes.CutPrefix(line, []byte("{"))
	if !ok || !bytes.HasSuffix(rest, []byte("}")) {
		return r, errors.New("not a record")
	}
	rest = rest[:len(rest)-1]
	next, always := 0, 0
	for i := 0; len(rest) > 0; i++ {
		var name string
		var err error
		if name, rest, err = cutName(rest, i == 0); err != nil {
			return control.AuditRecord{}, err
		}
		at := slices.IndexFunc(members[next:], func(m member) bool { return m.name == name })
		if at < 0 || next < 4 && at > 0 {
			return control.AuditRecord{}, fmt.Errorf("member %q does not belong there", name)
		}
		m := &members[next+at]
		next += at + 1
		if rest, err = read(m, &r, rest); err != nil {
			return control.AuditRecord{}, fmt.Errorf("member %q: %w", name, err)
		}
		if slices.Contains(inEveryEnd, name) {
			always++
		}
	}
	if r.Type == control.AuditEnd && !r.Interrupted && always < len(inEveryEnd) {
		return control.AuditRecord{}, errors.New("an end without its outcome")
	}
	if err := check(&r, next); err != nil {
		return control.AuditRecord{}, err
	}
	return r, nil
}

// check looks at what no member shows alone; next is the number of members that were passed.
func check(r *control.AuditRecord, next int) error {
	switch {
	case next < 4 || !slices.Contains(types, r.Type):
		return errors.New("not a record: number, time, hash and type come first")
	case len(r.Prev) != 64 || strings.Trim(r.Prev, hexDigits) != "":
		return errors.New("no hash of the record before")
	case (r.Type == control.AuditEnd) != (r.Begin != 0):
		return errors.New("an end names its beginning, and nothing else does")
	}
	return nil
}

// cutName cuts the name of the next member and the colon behind it off.
func cutName(rest []byte, first bool) (name string, after []byte, err error) {
	if !first {
		if rest[0] != ',' {
			return "", nil, errors.New("no comma between members")
		}
		rest = rest[1:]
	}
	rest, ok := bytes.CutPrefix(rest, []byte(`"`))
	quoted, after, found := bytes.Cut(rest, []byte(`":`))
	if !ok || !found || len(quoted) > 32 {
		return "", nil, errors.New("a member without a name")
	}
	return string(quoted), after, nil
}

// read reads the value that rest begins with into the member and returns what follows.
func read(m *member, r *control.AuditRecord, rest []byte) ([]byte, error) {
	switch v := m.at(r).(type) {
	case *string:
		rest, err := readText(v, rest)
		if err == nil && *v == "" {
			err = errors.New("an empty string is left out")
		}
		return rest, err
	case *time.Time:
		var s string
		rest, err := readText(&s, rest)
		if err == nil {
			*v, err = time.Parse(time.RFC3339Nano, s)
		}
		if err != nil || v.Location() != time.UTC || v.Format(time.RFC3339Nano) != s {
			return nil, errors.New("not a time as it is written here")
		}
		return rest, nil
	case *bool:
		rest, *v = bytes.CutPrefix(rest, []byte("true"))
		if !*v {
			return nil, errors.New("neither true nor left out")
		}
		return rest, nil
	case *[]string:
		return readList(v, rest, readText)
	case *[]uint64:
		return readList(v, rest, readNumber)
	default:
		var n uint64
		rest, err := readNumber(&n, rest)
		if err == nil {
			err = setNumber(v, n, r.Type == control.AuditEnd && !r.Interrupted && slices.Contains(inEveryEnd, m.name))
		}
		return rest, err
	}
}

// setNumber stores n, which may be zero only if that is said.
func setNumber(at any, n uint64, zero bool) error {
	if n == 0 && !zero {
		return errors.New("zero is left out")
	}
	switch v := at.(type) {
	case *uint64:
		*v = n
	case *int64:
		*v = int64(n)
	case *int:
		*v = int(n)
	}
	return nil
}

// readNumber reads a number without a sign or leading zeros, which fits an int64.
func readNumber(v *uint64, rest []byte) ([]byte, error) {
	i := 0
	for i < len(rest) && '0' <= rest[i] && rest[i] <= '9' {
		i++
	}
	n, err := strconv.ParseInt(string(rest[:i]), 10, 64)
	if err != nil || i > 1 && rest[0] == '0' {
		return nil, errors.New("not a number as it is written here")
	}
	*v = uint64(n)
	return rest[i:], nil
}

func readList[T any](v *[]T, rest []byte, one func(*T, []byte) ([]byte, error)) ([]byte, error) {
	rest, ok := bytes.CutPrefix(rest, []byte("["))
	if !ok {
		return nil, errors.New("not a list")
	}
	for len(rest) > 0 {
		var item T
		var err error
		if rest, err = one(&item, rest); err != nil {
			return nil, err
		}
		*v = append(*v, item)
		switch {
		case bytes.HasPrefix(rest, []byte(",")):
			rest = rest[1:]
		case bytes.HasPrefix(rest, []byte("]")):
			return rest[1:], nil
		default:
			return nil, errors.New("a list that does not end")
		}
	}
	return nil, errors.New("a list that does not end")
}
