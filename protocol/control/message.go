package control

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"torno.internal/protocol"
)

// MessageAlgs are the algorithms of SchemeMessage (RFC 9421 §3.3).
var MessageAlgs = []string{"ed25519", "ecdsa-p256-sha256", "ecdsa-p384-sha384", "rsa-pss-sha512", "rsa-v1_5-sha256", algHMAC}

const algHMAC = "hmac-sha256"

// maxExpires is how long a message signature may be good for, in seconds.
const maxExpires = 3600

// derived are the components of a request that are not fields (RFC 9421 §2.2).
var derived = []string{"@method", "@authority", "@scheme", "@target-uri", "@request-target", "@path", "@query"}

func checkMessageAlg(_, alg string) error {
	if !slices.Contains(MessageAlgs, alg) {
		return fmt.Errorf("%q is none of %s", alg, strings.Join(MessageAlgs, ", "))
	}
	return nil
}

// checkQuoted accepts what stands in a string of a structured field as it is (RFC 9651 §3.3.3).
func checkQuoted(_, s string) error {
	if strings.ContainsAny(s, `"\`) {
		return fmt.Errorf(`%q holds a quote or a backslash`, s)
	}
	return nil
}

// checkLabel accepts a key of a structured field (RFC 9651 §3.1.2).
func checkLabel(_, s string) error {
	if s[0] < 'a' || s[0] > 'z' || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789_-.*") != "" {
		return fmt.Errorf("label %q: lower-case letters and digits, a letter first", s)
	}
	return nil
}

func checkExpires(_, s string) error {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > maxExpires || strconv.Itoa(n) != s {
		return fmt.Errorf("%q is not a number of seconds from 1 to %d", s, maxExpires)
	}
	return nil
}

// checkComponents accepts a list of components that binds the whole request: method, host, path, query and content.
func checkComponents(_, list string) error {
	var names []string
	for _, c := range strings.Fields(list) {
		name, param, with := strings.Cut(c, ";name=")
		switch {
		case slices.Contains(names, c):
			return fmt.Errorf("component %q stands twice", c)
		case name == "@query-param" && param != "" && checkParameterName("", param) == nil:
		case with || name != strings.ToLower(name) || !slices.Contains(derived, name) && !protocol.IsToken(name):
			return fmt.Errorf("%q is not a component of a request: %s, @query-param;name=NAME or a field's name", c, strings.Join(derived, ", "))
		case !isSignable(name):
			return fmt.Errorf("field %q may change on its way, so it can't be signed", name)
		}
		names = append(names, c)
	}
	has := func(c string) bool { return slices.Contains(names, c) }
	target := has("@request-target") || has("@path") && has("@query")
	if !has("@method") || !has("content-digest") || !has("@target-uri") && !(has("@authority") && target) {
		return errors.New("a signature over less than @method, @target-uri (or @authority, @path and @query) and content-digest could be used for another request")
	}
	return nil
}

// isSignable reports whether the field called name, in lower case, arrives as it is signed: it does not change on its way, and the
// broker does not remove it as a credential.
func isSignable(name string) bool {
	switch name {
	case "content-type", "date":
		return true
	case "host", "content-length", "authorization", "x-api-key":
		return false
	}
	return !isReserved(name)
}

// checkSigningKey accepts a private key in PEM for the parameter alg, or a shared key where that wants one.
func checkSigningKey(in Injector, value []byte) error {
	if KindOf(in.Param("alg")) != KeyShared {
		return checkKey(in, value)
	}
	key, err := DecodeKey(value, in.ParamOr(ParamKey, CodingRaw))
	clear(key)
	return err
}
