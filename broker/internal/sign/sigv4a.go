package sign

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// AWS Signature Version 4A signs for a set of regions at once, by ECDSA over P-256. Its scope names no region: the field
// x-amz-region-set, which is signed, does.
const (
	awsAsymmetric          = "AWS4-ECDSA-P256-SHA256"
	payloadECDSA           = "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD"
	payloadECDSATrailer    = "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD-TRAILER"
	maxAsymmetricSignature = 144 // digits: those of a DER SEQUENCE of two INTEGERs of 33 bytes
	maxRegionSet           = 1 << 10
)

// deriveAsymmetric derives the key pair of AWS keys: by a KDF in counter mode (NIST SP 800-108) with HMAC-SHA256, again with
// the next outer counter where the number is too large for a private key, which hardly ever happens.
//
//	0x00000001 | AWS4-ECDSA-P256-SHA256 | 0x00 | ID | COUNTER | 0x00000100
func deriveAsymmetric(k control.AWSKeys, in scope, now time.Time) (*awsKey, error) {
	key := append([]byte("AWS4A"), k.Secret...)
	defer secret.Wipe(key)
	input := append([]byte{0, 0, 0, 1}, awsAsymmetric...)
	input = append(append(input, 0), k.ID...)
	input = append(input, 0, 0, 0, 1, 0)
	counter := &input[len(input)-5]
	for *counter = 1; *counter < 255; *counter++ {
		d := hmacSHA256(key, string(input))
		addOne(&d)
		private, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), d[:])
		clear(d[:])
		if err == nil {
			return &awsKey{time: now.UTC().Format(awsTime), in: in, private: private}, nil
		}
	}
	return nil, errors.New("no key pair can be derived from the keys")
}

// addOne adds one to a number, the highest byte first; the largest becomes zero.
func addOne(n *[sha256.Size]byte) {
	carry := uint16(1)
	for i := len(n) - 1; i >= 0; i-- {
		carry += uint16(n[i])
		n[i] = byte(carry)
		carry >>= 8
	}
}

// signASN1 returns the signature over what hashes to hash: DER, in hex.
func (k *awsKey) signASN1(hash [sha256.Size]byte) (string, error) {
	der, err := ecdsa.SignASN1(rand.Reader, k.private, hash[:])
	if err != nil {
		return "", errors.New("the derived key can't sign")
	}
	return hex.EncodeToString(der), nil
}

// isAsymmetricSignature reports whether s can be a signature, without padding.
func isAsymmetricSignature(s string) bool {
	return len(s) >= 16 && len(s) <= maxAsymmetricSignature && len(s)%2 == 0 && strings.Trim(s, "0123456789abcdef") == ""
}

// parseRegionSet reads a list of regions with commas between. A star at the end of one stands for any rest.
func parseRegionSet(list string) ([]string, error) {
	all := strings.Split(list, ",")
	if len(list) > maxRegionSet {
		return nil, fmt.Errorf("a region set of %d bytes", len(list))
	}
	for i, region := range all {
		all[i] = strings.Trim(region, " ")
		if r := strings.TrimSuffix(all[i], "*"); all[i] == "" || r != "" && !isScopePart(r) {
			return nil, fmt.Errorf("region set %q", list)
		}
	}
	return all, nil
}

// covers reports whether the regions that are sealed with the secret hold region, which may itself end in a star.
func covers(sealed []string, region string) bool {
	return slices.ContainsFunc(sealed, func(s string) bool {
		start, open := strings.CutSuffix(s, "*")
		return s == region || open && strings.HasPrefix(region, start)
	})
}

// regionSet returns the set to sign for: the workload's own, which must lie within what is sealed, or all that is sealed.
func (s *sigV4) regionSet(claimed string) (string, error) {
	sealed := s.regions
	if s.region != "" && !slices.Contains(sealed, s.region) {
		sealed = append(slices.Clone(sealed), s.region)
	}
	if claimed == "" {
		return strings.Join(s.regions, ","), nil
	}
	all, err := parseRegionSet(claimed)
	if err != nil {
		return "", err
	}
	for _, region := range all {
		if len(sealed) > 0 && !covers(sealed, region) {
			return "", fmt.Errorf("the request's signature is for region %q, the secret for %q", region, sealed)
		}
	}
	return strings.Join(all, ","), nil
}
