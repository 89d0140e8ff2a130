package sign

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"torno.internal/protocol"
)

// maxCovered is how many fields a workload's signature may cover.
const maxCovered = 64

// A claim is what the workload's own signature, made with placeholders, says of the request. The zero value is that
// of a request that is not signed.
type claim struct {
	in      scope
	set     string   // the regions, where it is one of Signature Version 4A; else empty
	covered []string // names of the fields that it covers
	payload string   // x-amz-content-sha256; empty: not declared
}

// readClaim reads the workload's signature out of its fields, or out of pre where that is not nil.
func readClaim(f protocol.Fields, pre *presigned) (c claim, err error) {
	for _, name := range []string{"authorization", "x-amz-date", "x-amz-content-sha256", "x-amz-security-token", "x-amz-region-set"} {
		if f.Count(name) > 1 {
			return claim{}, fmt.Errorf("field %s stands twice", name)
		}
	}
	auth := f.Get("authorization")
	switch {
	case pre != nil && auth != "":
		return claim{}, errors.New("signed in the query and in its fields")
	case pre != nil:
		c = pre.claim
	case strings.HasPrefix(auth, awsAlgorithm+" "):
		if c, err = parseAuthorization(auth[len(awsAlgorithm)+1:], f.Get("x-amz-date"), ""); err != nil {
			return claim{}, fmt.Errorf("authorization: %w", err)
		}
	case strings.HasPrefix(auth, awsAsymmetric+" "):
		if f.Get("x-amz-region-set") == "" {
			return claim{}, errors.New("authorization: no x-amz-region-set")
		}
		if c, err = parseAuthorization(auth[len(awsAsymmetric)+1:], f.Get("x-amz-date"), f.Get("x-amz-region-set")); err != nil {
			return claim{}, fmt.Errorf("authorization: %w", err)
		}
	case strings.HasPrefix(auth, "AWS4-"):
		return claim{}, fmt.Errorf("authorization: algorithm %q", auth[:strings.IndexByte(auth+" ", ' ')])
	}
	if declared := f.Get("x-amz-content-sha256"); declared != "" {
		if c.payload != "" && c.payload != declared {
			return claim{}, errors.New("two declarations of the content's digest")
		}
		c.payload = declared
	}
	return c, nil
}

// parseAuthorization reads the parameters of an Authorization field. date is the x-amz-date beside it; where that is
// absent the Date field was signed instead. set is the x-amz-region-set of Signature Version 4A.
func parseAuthorization(params, date, set string) (claim, error) {
	parts := map[string]string{}
	for param := range strings.SplitSeq(params, ",") {
		name, value, ok := strings.Cut(strings.Trim(param, " "), "=")
		if _, again := parts[name]; !ok || again {
			return claim{}, fmt.Errorf("parameter %q", name)
		}
		parts[name] = value
	}
	if len(parts) != 3 || !isSignature(parts["Signature"], set != "") {
		return claim{}, errors.New("not one Credential, SignedHeaders and Signature")
	}
	return parseClaim(parts["Credential"], parts["SignedHeaders"], date, set)
}

// isSignature reports whether s can be a signature.
func isSignature(s string, asymmetric bool) bool {
	if asymmetric {
		return isAsymmetricSignature(s)
	}
	return isDigest(s)
}

// parseClaim reads a credential with its scope, the names of the fields that are covered, and the date, which
// is the workload's own: the host signs at its own time. An empty date is not compared.
func parseClaim(credential, covered, date, set string) (c claim, err error) {
	parts := strings.Split(credential, "/")
	if set != "" { // the scope has no region
		parts = slices.Insert(parts, min(2, len(parts)), "any")
	}
	if len(parts) != 5 || parts[4] != awsEnd || parts[0] == "" || !isScopePart(parts[2]) || !isScopePart(parts[3]) {
		return claim{}, errors.New("credential is not KEY/DAY/REGION/SERVICE/aws4_request")
	}
	if _, err := time.Parse(awsDay, parts[1]); err != nil {
		return claim{}, errors.New("credential of no day")
	}
	if date != "" {
		if _, err := time.Parse(awsTime, date); err != nil || date[:len(awsDay)] != parts[1] {
			return claim{}, errors.New("x-amz-date is no time of the credential's day")
		}
	}
	if c.in = (scope{region: parts[2], service: parts[3]}); set != "" {
		c.in.region, c.set = "", set
	}
	c.covered, err = parseCovered(covered)
	return c, err
}

// parseCovered reads the names of the fields that a signature covers. Over HTTP/2 some SDKs call the host :authority.
func parseCovered(list string) ([]string, error) {
	names := strings.Split(list, ";")
	if len(names) > maxCovered || !slices.IsSorted(names) || !slices.Contains(names, "host") && names[0] != ":authority" {
		return nil, errors.New("signed headers are not a sorted list with host in it")
	}
	for _, name := range names {
		if !protocol.IsToken(name) && name != ":authority" || name != strings.ToLower(name) {
			return nil, fmt.Errorf("signed header %q", name)
		}
	}
	return names, nil
}

// isScopePart reports whether s can be a region's or a service's name.
func isScopePart(s string) bool {
	return s != "" && len(s) <= 64 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// signs reports whether the field called name is signed where it goes out: those that say what is done to what, and
// those that the workload's own signature covers. Fields that this hop or a later one may change are not.
func (p *sigV4Plan) signs(name string) bool {
	switch name {
	case "host", "content-length", "accept-encoding", "authorization", "connection", "cookie", "expect", "proxy-authorization",
		"te", "trailer", "transfer-encoding", "user-agent", "via", "x-amzn-trace-id", "x-forwarded-for":
		return false
	}
	return strings.HasPrefix(name, "x-amz-") || strings.HasPrefix(name, "content-") || strings.HasPrefix(name, "if-") ||
		name == "range" || slices.Contains(p.covered, name)
}

// parseSize reads a length as fields have it.
func parseSize(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || strconv.FormatInt(n, 10) != s {
		return 0, fmt.Errorf("%q is not a length", s)
	}
	return n, nil
}
