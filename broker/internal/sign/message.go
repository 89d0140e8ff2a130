package sign

import (
	"crypto"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// messageAlgorithms are the algorithms of HTTP Message Signatures (RFC 9421 §3.3).
var messageAlgorithms = map[string]algorithm{
	"ed25519":           {kind: control.KeyEd25519},
	"ecdsa-p256-sha256": {hash: crypto.SHA256, kind: control.KeyP256},
	"ecdsa-p384-sha384": {hash: crypto.SHA384, kind: control.KeyP384},
	"rsa-pss-sha512":    {hash: crypto.SHA512, kind: control.KeyRSA, pss: true},
	"rsa-v1_5-sha256":   {hash: crypto.SHA256, kind: control.KeyRSA},
	"hmac-sha256":       {hash: crypto.SHA256, kind: control.KeyShared},
}

// messageLife is how long a signature is good for, unless the secret says otherwise.
const messageLife = 5 * time.Minute

// A message signs by HTTP Message Signatures (RFC 9421), with a Content-Digest (RFC 9530).
type message struct {
	algorithm
	alg, label, keyid, tag string
	coding                 string      // of a shared key
	components             []component // empty: the usual ones
	life                   time.Duration
	keys                   keyring
}

func newMessage(in control.Injector) *message {
	m := &message{
		algorithm: messageAlgorithms[in.Param("alg")], alg: in.Param("alg"), label: in.Param("label"), keyid: in.Param("keyid"), tag: in.Param("tag"),
		coding: in.ParamOr(control.ParamKey, control.CodingRaw), components: parseComponents(in.Param("components")), life: messageLife,
	}
	if m.label == "" {
		m.label = "sig1"
	}
	if seconds, err := strconv.Atoi(in.Param("expires")); err == nil {
		m.life = time.Duration(seconds) * time.Second
	}
	return m
}

func (*message) Strip(name string) bool {
	switch protocol.FoldName(name) {
	case "authorization", "proxy-authorization", "x-api-key", "signature", "signature-input":
		return true
	}
	return false
}

// A messagePlan is how one request is signed.
type messagePlan struct {
	*message
	digest digest // that the workload declared; the zero one: none
}

// Plan reads the workload's own digest of the content, which is kept.
func (m *message) Plan(r *Request) (Plan, error) {
	p := &messagePlan{message: m}
	switch r.Fields.Count("content-digest") {
	case 0:
		return p, nil
	case 1:
		var err error
		p.digest, err = parseDigest(r.Fields.Get("content-digest"))
		return p, err
	}
	return nil, errors.New("field content-digest stands twice")
}

func (p *messagePlan) Demand() Demand {
	if p.digest.hash == 0 {
		return DemandWhole
	}
	return DemandNothing
}

func (p *messagePlan) Sign(value secret.Value, r *Request, now time.Time) (*Proof, error) {
	proof, fields := &Proof{}, r.Fields
	switch {
	case p.digest.hash == 0 && !r.Whole:
		return nil, errors.New("the content's digest is signed, and not all of it is there")
	case p.digest.hash == 0 && p.describes(r):
		own := protocol.Field{Name: "content-digest", Value: newDigest(crypto.SHA256, r.Content).String()}
		fields = append(fields.Clone(), own)
		proof.Fields = append(proof.Fields, field(own.Name, own.Value))
	case p.digest.hash != 0 && r.Whole:
		if newDigest(p.digest.hash, r.Content) != p.digest {
			return nil, fmt.Errorf("content-digest: %w", ErrContent)
		}
	case p.digest.hash != 0:
		proof.Content = func(w io.Writer) io.WriteCloser { return newDigestWriter(w, p.digest) }
	}
	if err := p.finish(proof, value, r, fields, now, p.life); err != nil {
		return nil, err
	}
	return proof, nil
}

// finish adds the signature of r, which goes out with fields, to its proof.
func (p *messagePlan) finish(proof *Proof, value secret.Value, r *Request, fields protocol.Fields, now time.Time, life time.Duration) error {
	params := p.params(p.covered(fields), now, life)
	base, err := signatureBase(r, fields, p.covered(fields), params)
	if err != nil {
		return err
	}
	signature, err := p.prove(value, []byte(base))
	if err != nil {
		return err
	}
	proof.Fields = append(proof.Fields, field("signature-input", p.label+"="+params),
		field("signature", p.label+"=:"+base64.StdEncoding.EncodeToString(signature)+":"))
	return nil
}

// describes reports whether the request gets a digest of its content: where it has some, or could have.
func (p *messagePlan) describes(r *Request) bool {
	return len(r.Content) > 0 || r.Method != "GET" && r.Method != "HEAD" ||
		slices.ContainsFunc(p.components, func(c component) bool { return c.name == "content-digest" })
}

// covered returns what is signed of a request with the fields f.
func (p *messagePlan) covered(f protocol.Fields) []component {
	if len(p.components) > 0 {
		return p.components
	}
	all := []component{{name: "@method"}, {name: "@authority"}, {name: "@path"}, {name: "@query"}}
	for _, name := range []string{"content-type", "content-digest"} {
		if f.Count(name) > 0 {
			all = append(all, component{name: name})
		}
	}
	return all
}

// params returns the signature's parameters (RFC 9421 §2.3), with what is covered before them.
func (p *messagePlan) params(covered []component, now time.Time, life time.Duration) string {
	b := appendCovered(nil, covered)
	b = strconv.AppendInt(append(b, ";created="...), now.Unix(), 10)
	b = strconv.AppendInt(append(b, ";expires="...), now.Add(life).Unix(), 10)
	b = append(b, `;nonce="`+rand.Text()+`"`...)
	b = append(b, `;keyid="`+p.keyid+`";alg="`+p.alg+`"`...)
	if p.tag != "" {
		b = append(b, `;tag="`+p.tag+`"`...)
	}
	return string(b)
}

// prove signs the base.
func (p *messagePlan) prove(value secret.Value, base []byte) (signature []byte, err error) {
	err = p.keys.use(value, p.algorithm, p.coding, func(k key) error {
		signature, err = k.sign(base)
		return err
	})
	return signature, err
}
