package control

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"

	"torno.internal/protocol"
)

// maxTargetPart bounds a value that goes into the request's target, in bytes: percent-encoded it leaves room
// for the rest.
const maxTargetPart = protocol.MaxPath / 4

// checkFieldPart accepts a value that can stand inside a request field.
func checkFieldPart(in Injector, value []byte) error {
	if err := checkPlain(value, "a request field"); err != nil {
		return err
	}
	for _, f := range in.Fields {
		if len(f.Value)+len(value) > protocol.MaxFieldValue {
			return fmt.Errorf("the value makes header %q longer than %d bytes", f.Name, protocol.MaxFieldValue)
		}
	}
	return nil
}

// checkToken accepts a bearer token.
func checkToken(_ Injector, value []byte) error {
	if err := checkPlain(value, "a request field"); err != nil {
		return err
	}
	switch {
	case bytes.IndexByte(value, ' ') >= 0:
		return errors.New("the value holds a space; a bearer token has none")
	case len("Bearer ")+len(value) > protocol.MaxFieldValue:
		return fmt.Errorf("the value makes a field longer than %d bytes", protocol.MaxFieldValue)
	}
	return nil
}

// checkGitToken accepts a bearer token that fits a Basic credential as well.
func checkGitToken(in Injector, value []byte) error {
	if err := checkToken(in, value); err != nil {
		return err
	}
	return checkPassword(in, value)
}

// checkPlain accepts visible ASCII with inner spaces.
func checkPlain(value []byte, where string) error {
	if i := badFieldByte(value); i >= 0 {
		return fmt.Errorf("the value holds %s; %s cannot carry it", badByte(value, i), where)
	}
	if value[0] == ' ' || value[len(value)-1] == ' ' {
		return errors.New("the value begins or ends with a space")
	}
	return nil
}

// badByte says what value[i] is, without showing it.
func badByte(value []byte, i int) string {
	switch c := value[i]; {
	case c == '\n' && i == len(value)-1:
		return "a newline at its end, which echo adds (printf %s does not)"
	case c == '\r' || c == '\n':
		return "a line break"
	case c >= 0x80:
		return "a byte that is not ASCII"
	}
	return "a control byte"
}

// checkContent accepts a value that can stand in a JSON string and in a form.
func checkContent(value []byte) error {
	if !utf8.Valid(value) {
		return errors.New("the value is not UTF-8, which content is made of")
	}
	return nil
}

// checkText accepts UTF-8 without control characters, of at most limit bytes.
func checkText(value []byte, where string, limit int) error {
	if i := bytes.IndexFunc(value, isControl); i >= 0 {
		return fmt.Errorf("the value holds %s; %s cannot carry it", badByte(value, i), where)
	}
	switch {
	case !utf8.Valid(value):
		return errors.New("the value is not UTF-8")
	case len(value) > limit:
		return fmt.Errorf("the value has %d bytes, at most %d fit into %s", len(value), limit, where)
	}
	return nil
}

func isControl(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 }

// checkPassword accepts what RFC 7617 §2 lets a user and a password be made of.
func checkPassword(in Injector, value []byte) error {
	if in.Param("template") != "" && !bytes.Contains([]byte(in.Param("template")), []byte(":")) && bytes.IndexByte(value, ':') < 0 {
		return errors.New("neither the template nor the value has the colon that parts user and password")
	}
	return checkText(value, "a Basic credential", protocol.MaxFieldValue/2)
}

// checkTargetPart accepts a value for a query parameter, where it is percent-encoded.
func checkTargetPart(_ Injector, value []byte) error {
	return checkText(value, "a query", maxTargetPart)
}

// checkPathPart accepts a value that is one segment of a path, or several that every server reads as they stand.
func checkPathPart(_ Injector, value []byte) error {
	if err := checkText(value, "a path", maxTargetPart); err != nil {
		return err
	}
	for part := range bytes.SplitSeq(value, []byte("/")) {
		if slices.Contains([]string{"", ".", ".."}, string(part)) {
			return errors.New("the value begins or ends with a slash, or has an empty or dotted segment")
		}
	}
	if bytes.ContainsAny(value, `\;`) {
		return errors.New(`the value holds ";" or "\", which servers read in several ways in a path`)
	}
	return nil
}

// checkCookieValue accepts a cookie's value (RFC 6265 §4.1.1), without quotes.
func checkCookieValue(_ Injector, value []byte) error {
	if err := checkPlain(value, "a cookie"); err != nil {
		return err
	}
	if bytes.ContainsAny(value, ` ",;\`) {
		return errors.New(`the value holds a space or one of ",;\, which a cookie cannot carry`)
	}
	if len(value) > protocol.MaxFieldValue/2 {
		return fmt.Errorf("the value has %d bytes, at most %d fit into a cookie", len(value), protocol.MaxFieldValue/2)
	}
	return nil
}
