package sign

import (
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// A sigV4 signs by AWS Signature Version 4, or by 4A where the workload does or only sets of regions are sealed. Empty service
// and region are those of the workload's own signature.
type sigV4 struct {
	service, region string
	regions         []string // of Signature Version 4A
}

// newSigV4 returns the signer that in describes.
func newSigV4(in control.Injector) *sigV4 {
	return &sigV4{service: in.Param(control.ParamService), region: in.Param(control.ParamRegion), regions: strings.Fields(in.Param(control.ParamRegions))}
}

// Values of x-amz-content-sha256 that are not a digest.
const (
	payloadUnsigned        = "UNSIGNED-PAYLOAD"
	payloadUnsignedTrailer = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
	payloadChunked         = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
	payloadChunkedTrailer  = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
)

// maxPresign is how long a request that is signed in its query is good for.
const maxPresign = 15 * time.Minute

func (*sigV4) Strip(name string) bool {
	switch protocol.FoldName(name) {
	case "authorization", "proxy-authorization", "x-api-key", "x-amz-date", "x-amz-security-token",
		"x-amz-content-sha256", "x-amz-region-set":
		return true
	}
	return false
}

// A sigV4Plan is how one request is signed.
type sigV4Plan struct {
	in      scope
	set     string   // the regions of Signature Version 4A; else empty
	payload string   // as x-amz-content-sha256 says it; empty: the digest of the whole content
	covered []string // fields that the workload's own signature covers
	open    bool     // payload is unsigned because the workload said nothing: what is there is signed anyway
	presign *presigned
	decoded int64 // with payloads in chunks: bytes of content inside them
}

// Plan reads the workload's own signature for its shape. It is not verified: whoever may send the request may
// have it signed.
func (s *sigV4) Plan(r *Request) (Plan, error) {
	if !strings.HasPrefix(r.Target, "/") {
		return nil, fmt.Errorf("target %q has no path to sign", r.Target)
	}
	p := &sigV4Plan{}
	query, err := parseQuery(queryOf(r.Target))
	if err != nil {
		return nil, err
	}
	if p.presign, err = readPresigned(query); err != nil {
		return nil, err
	}
	if p.presign != nil && !r.Presign {
		return nil, errors.New("the request is presigned, and the operator does not allow that (presign)")
	}
	claim, err := readClaim(r.Fields, p.presign)
	if err != nil {
		return nil, err
	}
	p.covered = claim.covered
	if p.in, p.set, err = s.scope(claim); err != nil {
		return nil, err
	}
	return p, p.readPayload(r, claim.payload)
}

// scope returns the scope to sign in, and the regions where it is one of Signature Version 4A: what is sealed, which the
// workload's own signature, if it has one, must agree with.
func (s *sigV4) scope(c claim) (in scope, set string, err error) {
	in = scope{region: s.region, service: s.service}
	if in.service, err = agree(control.ParamService, s.service, c.in.service); err != nil {
		return scope{}, "", err
	}
	unsigned := len(c.covered) == 0
	if c.set != "" || unsigned && s.region == "" && len(s.regions) > 0 {
		set, err = s.regionSet(c.set)
		return scope{service: in.service}, set, err
	}
	if s.region == "" && len(s.regions) > 0 {
		if !covers(s.regions, c.in.region) {
			return scope{}, "", fmt.Errorf("the request's signature is for region %q, the secret for %q", c.in.region, s.regions)
		}
		return scope{region: c.in.region, service: in.service}, "", nil
	}
	in.region, err = agree(control.ParamRegion, s.region, c.in.region)
	return in, "", err
}

// agree returns the sealed part of a scope, or the workload's own where none is sealed.
func agree(name, sealed, claimed string) (string, error) {
	switch {
	case sealed == "" && claimed == "":
		return "", fmt.Errorf("no %s is sealed with the secret, and the request has no signature that names one", name)
	case sealed != "" && claimed != "" && claimed != sealed:
		return "", fmt.Errorf("the request's signature is for %s %q, the secret for %q", name, claimed, sealed)
	case sealed == "":
		return claimed, nil
	}
	return sealed, nil
}

// readPayload learns how the content is signed.
func (p *sigV4Plan) readPayload(r *Request, declared string) error {
	chunked, _ := chunkedBy(declared)
	switch {
	case chunked != "" && (chunked == awsAsymmetric) != (p.set != ""):
		return fmt.Errorf("x-amz-content-sha256 %q with a signature by another algorithm", declared)
	case chunked != "":
		if p.presign != nil {
			return errors.New("a presigned request with signed chunks")
		}
		n, err := parseSize(r.Fields.Get("x-amz-decoded-content-length"))
		if err != nil {
			return fmt.Errorf("x-amz-decoded-content-length: %w", err)
		}
		p.decoded = n
	case declared == payloadUnsigned || declared == payloadUnsignedTrailer:
		if !p.in.object() {
			return fmt.Errorf("service %q takes no %s", p.in.service, declared)
		}
	case declared == "":
		if p.in.object() && (p.presign != nil || len(p.covered) == 0) {
			declared = payloadUnsigned // presigned, or not signed at all
			p.open = p.presign == nil
		}
	case !isDigest(declared):
		return fmt.Errorf("x-amz-content-sha256 %q", declared)
	}
	p.payload = declared
	return nil
}

// chunkedBy returns the algorithm by which content in chunks is signed, and whether trailers follow; "" where payload is none.
func chunkedBy(payload string) (algorithm string, trailers bool) {
	switch payload {
	case payloadChunked, payloadChunkedTrailer:
		return awsAlgorithm, payload == payloadChunkedTrailer
	case payloadECDSA, payloadECDSATrailer:
		return awsAsymmetric, payload == payloadECDSATrailer
	}
	return "", false
}

func (p *sigV4Plan) Demand() Demand {
	if p.payload == "" {
		return DemandWhole
	}
	if chunked, _ := chunkedBy(p.payload); chunked != "" {
		return DemandChunks
	}
	return DemandNothing
}

// Sign signs the request in its fields, or in its query where the workload's was presigned.
func (p *sigV4Plan) Sign(value secret.Value, r *Request, now time.Time) (*Proof, error) {
	payload, err := p.payloadOf(r)
	if err != nil {
		return nil, err
	}
	var proof *Proof
	err = withKeys(value, func(k control.AWSKeys) error {
		key, err := p.derive(k, now)
		if err != nil {
			return err
		}
		if p.presign != nil {
			defer key.wipe()
			proof, err = p.signQuery(key, k, r, payload, now)
			return err
		}
		proof, err = p.signFields(key, k, r, payload)
		return err
	})
	if err != nil {
		return nil, err
	}
	if proof.Content == nil && !r.Whole && isDigest(payload) {
		sum, err := hex.DecodeString(payload)
		if err != nil {
			return nil, err
		}
		proof.Content = func(w io.Writer) io.WriteCloser { return newDigestWriter(w, digest{crypto.SHA256, string(sum)}) }
	}
	return proof, nil
}

func (p *sigV4Plan) derive(k control.AWSKeys, now time.Time) (*awsKey, error) {
	if p.set != "" {
		return deriveAsymmetric(k, p.in, now)
	}
	return deriveKey(k.Secret, p.in, now), nil
}

// payloadOf returns what is signed in the content's place. Where all of the content is there it is compared with
// what was declared.
func (p *sigV4Plan) payloadOf(r *Request) (string, error) {
	if p.payload != "" && !isDigest(p.payload) && !(p.open && r.Whole) {
		return p.payload, nil
	}
	if !r.Whole {
		if p.payload == "" {
			return "", errors.New("the content's digest is signed, and not all of it is there")
		}
		return p.payload, nil
	}
	sum := sha256.Sum256(r.Content)
	digest := hex.EncodeToString(sum[:])
	if isDigest(p.payload) && p.payload != digest {
		return "", fmt.Errorf("x-amz-content-sha256: %w", ErrContent)
	}
	return digest, nil
}

// signFields makes the fields that sign the request.
func (p *sigV4Plan) signFields(key *awsKey, k control.AWSKeys, r *Request, payload string) (*Proof, error) {
	own := protocol.Fields{{Name: "x-amz-content-sha256", Value: payload}, {Name: "x-amz-date", Value: key.time}}
	if p.set != "" {
		own = append(own, protocol.Field{Name: "x-amz-region-set", Value: p.set})
	}
	proof := &Proof{Fields: make([]Field, 0, len(own)+2)}
	for _, l := range own {
		proof.Fields = append(proof.Fields, field(l.Name, l.Value))
	}
	if len(k.Token) > 0 {
		own = append(own, protocol.Field{Name: "x-amz-security-token", Value: string(k.Token)})
		proof.Fields = append(proof.Fields, Field{"x-amz-security-token", secret.New(append([]byte(nil), k.Token...))})
	}
	c := canonical{method: r.Method, payload: payload}
	if err := p.cover(&c, r, append(own, r.Fields...), r.Target); err != nil {
		return nil, err
	}
	signature, err := key.sign("", nil, sha256.Sum256(c.appendTo(make([]byte, 0, 1<<10))))
	if err != nil {
		return nil, err
	}
	b := append(append(make([]byte, 0, 512), key.algorithm()...), " Credential="...)
	b = append(b, k.ID...)
	b = p.in.appendTo(append(b, '/'), key.day())
	b = c.appendNames(append(b, ", SignedHeaders="...))
	b = append(append(b, ", Signature="...), signature...)
	proof.Fields = append(proof.Fields, Field{"authorization", secret.New(b)})
	if chunked, trailers := chunkedBy(payload); chunked != "" {
		proof.Content = func(w io.Writer) io.WriteCloser { return newChunkWriter(w, key, signature, p.decoded, trailers) }
		return proof, nil
	}
	key.wipe()
	return proof, nil
}

// cover fills in what of the request is signed.
func (p *sigV4Plan) cover(c *canonical, r *Request, fields protocol.Fields, target string) (err error) {
	path, query, _ := strings.Cut(target, "?")
	rule := pathNormal
	if p.in.object() {
		rule = pathObject
	}
	if c.path, err = canonicalPath(path, rule); err != nil {
		return err
	}
	if c.query, err = parseQuery(query); err != nil {
		return err
	}
	sortQuery(c.query)
	c.fields = canonicalFields(fields, r.Host, p.signs)
	return nil
}

func queryOf(target string) string {
	_, query, _ := strings.Cut(target, "?")
	return query
}

// isDigest reports whether s is a SHA-256 in lower-case hex.
func isDigest(s string) bool {
	return len(s) == 2*sha256.Size && strings.Trim(s, "0123456789abcdef") == ""
}
