package sign

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// Names of the parameters of a request that is signed in its query.
const (
	paramAlgorithm = "X-Amz-Algorithm"
	paramKey       = "X-Amz-Credential"
	paramDate      = "X-Amz-Date"
	paramExpires   = "X-Amz-Expires"
	paramCovered   = "X-Amz-SignedHeaders"
	paramToken     = "X-Amz-Security-Token"
	paramPayload   = "X-Amz-Content-Sha256"
	paramSignature = "X-Amz-Signature"
	paramRegions   = "X-Amz-Region-Set"
)

// A presigned is what a request that the workload signed in its query says there.
type presigned struct {
	claim   claim
	made    time.Time
	expires time.Duration
	rest    []parameter // of the query, without those of the signature
}

// readPresigned reads the signature out of a query; nil if there is none. Servers may take names in any case for
// theirs, so no parameter that looks like one of them passes by its side.
func readPresigned(query []parameter) (*presigned, error) {
	own := map[string]string{}
	var rest []parameter
	for _, p := range query {
		name := signatureParameter(p.name)
		if name == "" {
			rest = append(rest, p)
			continue
		}
		if _, again := own[name]; again || p.name != name {
			return nil, fmt.Errorf("query parameter %q stands twice, or in another case", p.name)
		}
		value, err := unescape(p.value, false)
		if err != nil {
			return nil, err
		}
		own[name] = value
	}
	if len(own) == 0 {
		return nil, nil
	}
	return parsePresigned(own, rest)
}

func parsePresigned(own map[string]string, rest []parameter) (*presigned, error) {
	for _, name := range []string{paramAlgorithm, paramKey, paramDate, paramExpires, paramCovered, paramSignature} {
		if own[name] == "" {
			return nil, fmt.Errorf("parameters of a signature in the query, without %s", name)
		}
	}
	asymmetric := own[paramAlgorithm] == awsAsymmetric
	if !asymmetric && own[paramAlgorithm] != awsAlgorithm || asymmetric != (own[paramRegions] != "") || !isSignature(own[paramSignature], asymmetric) {
		return nil, fmt.Errorf("signed in the query by %q", own[paramAlgorithm])
	}
	p := &presigned{rest: rest}
	var err error
	if p.claim, err = parseClaim(own[paramKey], own[paramCovered], own[paramDate], own[paramRegions]); err != nil {
		return nil, fmt.Errorf("signed in the query: %w", err)
	}
	seconds, err := parseSize(own[paramExpires])
	if err != nil || seconds == 0 || seconds > 7*24*3600 {
		return nil, fmt.Errorf("%s %q", paramExpires, own[paramExpires])
	}
	p.claim.payload, p.expires = own[paramPayload], time.Duration(seconds)*time.Second
	p.made, err = time.Parse(awsTime, own[paramDate])
	return p, err
}

// signatureParameter returns the name of the signature's parameter that a server may take name for, or "".
func signatureParameter(name string) string {
	for _, own := range []string{paramAlgorithm, paramKey, paramDate, paramExpires, paramCovered, paramToken, paramPayload, paramSignature, paramRegions} {
		if strings.EqualFold(name, own) {
			return own
		}
	}
	if strings.EqualFold(name, "AWSAccessKeyId") { // version 2, which goes unsigned
		return name
	}
	return ""
}

// left returns how long the request is still good for: at most maxPresign from when it was made.
func (p *presigned) left(now time.Time) (time.Duration, error) {
	expires := min(p.expires, maxPresign)
	left := min(p.made.Add(expires).Sub(now), expires).Truncate(time.Second)
	if left <= 0 || p.made.Sub(now) > maxPresign {
		return 0, errors.New("the presigned request has expired")
	}
	return left, nil
}

// signQuery makes the target that signs the request.
func (p *sigV4Plan) signQuery(key *awsKey, k control.AWSKeys, r *Request, payload string, now time.Time) (*Proof, error) {
	left, err := p.presign.left(now)
	if err != nil {
		return nil, err
	}
	c := canonical{method: r.Method, payload: payload}
	path, _, _ := strings.Cut(r.Target, "?")
	if err := p.cover(&c, r, r.Fields, path); err != nil {
		return nil, err
	}
	c.query = append(c.query, p.presign.rest...)
	add := func(name, value string) { c.query = append(c.query, parameter{name, escape(value)}) }
	add(paramAlgorithm, key.algorithm())
	add(paramKey, string(k.ID)+"/"+string(p.in.appendTo(nil, key.day())))
	add(paramDate, key.time)
	add(paramExpires, strconv.Itoa(int(left/time.Second)))
	add(paramCovered, string(c.appendNames(nil)))
	if len(k.Token) > 0 {
		add(paramToken, string(k.Token))
	}
	if p.set != "" {
		add(paramRegions, p.set)
	}
	if p.presign.claim.payload != "" {
		add(paramPayload, payload)
	}
	sortQuery(c.query)
	signature, err := key.sign("", nil, sha256.Sum256(c.appendTo(nil)))
	if err != nil {
		return nil, err
	}
	target := appendQuery(append([]byte(path), '?'), c.query)
	target = append(target, "&"+paramSignature+"="+signature...)
	return &Proof{Fields: []Field{{Target, secret.New(target)}}}, nil
}
