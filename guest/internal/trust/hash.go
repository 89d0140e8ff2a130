package trust

import (
	"crypto/sha1" // a name for a file, as OpenSSL computes it; no security rests on it
	"encoding/asn1"
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf16"
)

// subjectHash returns the hash by which OpenSSL finds a certificate in a directory (X509_NAME_hash): the
// first four bytes, in little-endian order, of SHA-1 over the canonical encoding of the name, which is
// its relative distinguished names one after another, their text as lower-case UTF-8 with white space
// folded.
func subjectHash(subject []byte) (string, error) {
	var name []asn1.RawValue // one SET each
	if rest, err := asn1.Unmarshal(subject, &name); err != nil || len(rest) > 0 {
		return "", fmt.Errorf("subject is not a name: %w", err)
	}
	var canonical []byte
	for _, set := range name {
		rdn, err := canonicalRDN(set.Bytes)
		if err != nil {
			return "", err
		}
		canonical = append(canonical, rdn...)
	}
	sum := sha1.Sum(canonical)
	return fmt.Sprintf("%08x", binary.LittleEndian.Uint32(sum[:])), nil
}

type attribute struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue
}

func canonicalRDN(rest []byte) ([]byte, error) {
	var attributes []attribute
	for len(rest) > 0 {
		var a attribute
		var err error
		if rest, err = asn1.Unmarshal(rest, &a); err != nil {
			return nil, fmt.Errorf("subject has an unreadable attribute: %w", err)
		}
		if text, ok := textOf(a.Value); ok {
			a.Value = asn1.RawValue{Tag: asn1.TagUTF8String, Bytes: []byte(fold(text))}
		}
		attributes = append(attributes, a)
	}
	return asn1.MarshalWithParams(attributes, "set")
}

func textOf(v asn1.RawValue) (string, bool) {
	switch v.Tag {
	case asn1.TagUTF8String, asn1.TagPrintableString, asn1.TagIA5String, asn1.TagT61String, 26: // 26: VisibleString
		return string(v.Bytes), v.Class == asn1.ClassUniversal
	case asn1.TagBMPString:
		units := make([]uint16, len(v.Bytes)/2)
		for i := range units {
			units[i] = binary.BigEndian.Uint16(v.Bytes[2*i:])
		}
		return string(utf16.Decode(units)), v.Class == asn1.ClassUniversal
	}
	return "", false
}

// fold lower-cases ASCII and makes each run of white space one blank, none at the ends.
func fold(s string) string {
	lower := func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}
	return strings.Map(lower, strings.Join(strings.FieldsFunc(s, func(r rune) bool {
		return r == ' ' || '\t' <= r && r <= '\r'
	}), " "))
}
