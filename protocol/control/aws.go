package control

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Parameters of SchemeSigV4. What is left out is as the workload's own signature says.
const (
	ParamService = "service"
	ParamRegion  = "region"
	ParamRegions = "regions" // those that Signature Version 4A may sign for, with spaces between; a star at the end is any rest
)

const maxScopePart = 64 // bytes of a service's or a region's name

func checkScopePart(_, value string) error {
	if len(value) > maxScopePart || strings.Trim(value, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return fmt.Errorf("%q is not a name as AWS has them: lower-case letters, digits and hyphens", value)
	}
	return nil
}

// scopeParams returns the parameters that say what requests are signed for.
func scopeParams() []param {
	return []param{{ParamService, false, checkScopePart}, {ParamRegion, false, checkScopePart}, {ParamRegions, false, checkRegions}}
}

func checkRegions(_, value string) error {
	for region := range strings.SplitSeq(value, " ") {
		if region == "" || checkScopePart("", strings.TrimSuffix(region, "*")) != nil {
			return fmt.Errorf("%q is not regions with one space between them, each of which may end in a star", value)
		}
	}
	return nil
}

// Signs reports whether the secret that m describes never goes out, and proofs made with it do.
func (m Meta) Signs() bool { return schemes[m.Inject.Scheme].signs }

// Reveals reports whether proofs made with the secret hold a part of it: the host that gets them could repeat it, and nobody else
// may have one.
func (m Meta) Reveals() bool {
	if m.Inject.Scheme != SchemeHMAC {
		return false
	}
	h, err := ParseHMAC(m.Inject)
	return err == nil && h.Reveals()
}

// AWSKeys are the parts of a secret of SchemeSigV4 or SchemeAWSRole. They share memory with its value.
type AWSKeys struct {
	ID     []byte // is no secret
	Secret []byte
	Token  []byte // of temporary keys; else empty
}

// ParseAWSKeys reads ID:SECRET or ID:SECRET:TOKEN. Its errors never quote the value.
func ParseAWSKeys(value []byte) (AWSKeys, error) {
	parts := bytes.Split(value, []byte(":"))
	if len(parts) < 2 || len(parts) > 3 {
		return AWSKeys{}, errors.New("the value is not ID:SECRET or ID:SECRET:TOKEN, as keys of AWS are given")
	}
	for _, p := range parts {
		if len(p) == 0 || badFieldByte(p) >= 0 || bytes.IndexByte(p, ' ') >= 0 {
			return AWSKeys{}, errors.New("one of the value's parts is empty, or holds what no key of AWS holds")
		}
	}
	if bytes.ContainsAny(parts[0], `/,;="\`) {
		return AWSKeys{}, errors.New("the value's first part is not a key's id")
	}
	k := AWSKeys{ID: parts[0], Secret: parts[1]}
	if len(parts) == 3 {
		k.Token = parts[2]
	}
	return k, nil
}

// maxAWSKeys leaves room for the rest of a field, or of a query, that holds the id or the token.
const maxAWSKeys = 4 << 10 // bytes

func checkAWSKeys(_ Injector, value []byte) error {
	if len(value) > maxAWSKeys {
		return fmt.Errorf("the value has %d bytes, at most %d fit", len(value), maxAWSKeys)
	}
	_, err := ParseAWSKeys(value)
	return err
}

// publicPrefixes returns the beginnings of value that are no secret: what is in prefixes, and the id of a key that signs.
func (m Meta) publicPrefixes(value []byte, prefixes []string) []string {
	id, _, ok := bytes.Cut(value, []byte(":"))
	if !ok || m.Inject.Scheme != SchemeSigV4 && m.Inject.Scheme != SchemeAWSRole {
		return prefixes
	}
	return append(slices.Clone(prefixes), string(id)+":")
}

// SessionTokenPrefix returns the beginning of a session token that many tokens share, and is no secret: who issued it and,
// in newer ones, where. It is empty where the token is of another make.
//
//	base64( VERSION | 0x0a LEN issuer | 0x10 VARINT | 0x1a LEN region … )
func SessionTokenPrefix(token []byte) string {
	const withRegion = 0x21
	head := token[:min(len(token), 128)&^3]
	b := make([]byte, base64.StdEncoding.DecodedLen(len(head)))
	n, err := base64.StdEncoding.Decode(b, head)
	b = b[:n]
	at := 1
	text := func(tag byte) bool {
		if at+2 > len(b) || b[at] != tag || at+2+int(b[at+1]) > len(b) {
			return false
		}
		at += 2 + int(b[at+1])
		return true
	}
	if err != nil || !text(0x0a) || at >= len(b) || b[at] != 0x10 {
		return ""
	}
	_, width := binary.Uvarint(b[at+1:])
	if at += 1 + width; width <= 0 || b[0] == withRegion && !text(0x1a) {
		return ""
	}
	return string(head[:at*8/6])
}
