package mint

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"torno.internal/broker/internal/sign"
	"torno.internal/protocol"
	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// A role gets temporary keys of AWS from its Security Token Service: with keys that may assume the role
// (AssumeRole), which sign the request, or with a token that says who asks (AssumeRoleWithWebIdentity).
type role struct {
	endpoint
	meta control.Meta
}

func (role) id() bool { return false }

// stsVersion is that of the one API that STS has.
const stsVersion = "2011-06-15"

func (g role) request(value []byte, _ string, now time.Time) (*Request, error) {
	in := g.meta.Inject
	f := &form{}
	f.add("Action", g.action())
	f.add("Version", stsVersion)
	f.add("RoleArn", in.Param(control.ParamRole))
	f.add("RoleSessionName", g.meta.RoleSession())
	f.add("DurationSeconds", strconv.Itoa(int(in.RoleDuration()/time.Second)))
	f.add("ExternalId", in.Param(control.ParamExternalID))
	f.add("Policy", in.Param(control.ParamPolicy))
	for i, arn := range strings.Fields(in.Param(control.ParamPolicyARNs)) {
		f.add(fmt.Sprintf("PolicyArns.member.%d.arn", i+1), arn)
	}
	if in.Scheme == control.SchemeAWSWebIdentity {
		return g.identified(f, value, now)
	}
	req := g.post(f)
	req.Accept = "text/xml"
	var err error
	req.Proof, err = g.sign(req, value, now)
	return req, err
}

// action is what STS is asked to do.
func (g role) action() string {
	if g.meta.Inject.Scheme == control.SchemeAWSWebIdentity {
		return "AssumeRoleWithWebIdentity"
	}
	return "AssumeRole"
}

// identified returns the request with a token in its form: the value, or one that the value signs.
func (g role) identified(f *form, value []byte, now time.Time) (*Request, error) {
	if control.IsPrivatePEM(value) {
		in := g.meta.Inject
		c := claims{"iss": in.Param("iss"), "sub": in.Param("sub"), "aud": in.ParamOr("aud", "sts.amazonaws.com")}
		signed, err := signAssertion(value, in, c, now)
		if err != nil {
			return nil, err
		}
		defer secret.Wipe(signed)
		value = signed
	}
	f.addBytes("WebIdentityToken", value)
	req := g.post(f)
	req.Accept = "text/xml"
	return req, nil
}

// sign returns the fields that sign req.
func (g role) sign(req *Request, value []byte, now time.Time) ([]sign.Field, error) {
	in := control.Injector{Scheme: control.SchemeSigV4, Params: []control.Param{
		{Name: control.ParamRegion, Value: g.region()}, {Name: control.ParamService, Value: "sts"},
	}}
	r := &sign.Request{
		Method: req.Method, Host: g.host(), Target: req.Path, Content: req.Content, Whole: true,
		Fields: protocol.Fields{{Name: "content-type", Value: formType}},
	}
	plan, err := sign.New(control.Meta{Inject: in}).Plan(r)
	if err != nil {
		return nil, err
	}
	keys := secret.New(bytes.Clone(value))
	defer keys.Wipe()
	proof, err := plan.Sign(keys, r, now)
	if err != nil {
		return nil, err
	}
	return proof.Fields, nil
}

// region is the one that the endpoint's requests are signed for: that of its name, if it has one.
func (g role) region() string {
	const global = "us-east-1" // of what has no region in its name
	service, rest, _ := strings.Cut(g.authority.Host, ".")
	region, domain, _ := strings.Cut(rest, ".")
	switch {
	case rest == "amazonaws.com":
		return global
	case (service == "sts" || service == "sts-fips") && strings.HasPrefix(domain, "amazonaws."):
		return region
	}
	return g.meta.Inject.ParamOr(control.ParamRegion, global)
}

// An stsAnswer is the XML of an answer.
type stsAnswer struct {
	XMLName xml.Name
	Role    []stsKeys `xml:"AssumeRoleResult>Credentials"`
	Web     []stsKeys `xml:"AssumeRoleWithWebIdentityResult>Credentials"`
	Code    []string  `xml:"Error>Code"`
}

type stsKeys struct {
	ID     []byte `xml:"AccessKeyId"`
	Secret []byte `xml:"SecretAccessKey"`
	Token  []byte `xml:"SessionToken"`
	Until  string `xml:"Expiration"`
}

func (k stsKeys) wipe() {
	secret.Wipe(k.Secret)
	secret.Wipe(k.Token)
}

// maxDepth bounds how deep elements of an answer lie inside one another; STS's lie five deep.
const maxDepth = 16

// read implements reader.
func (g role) read(a *Answer, now time.Time) (*answered, error) {
	var x stsAnswer
	err := parseXML(a.Content, &x)
	all := append(x.Role, x.Web...)
	defer func() {
		for _, k := range all {
			k.wipe()
		}
	}()
	switch {
	case a.Status != 200:
		return nil, fmt.Errorf("the token endpoint answers %d%s%s", a.Status, a.saying(stsCode(x.Code)), clockNote(a, now))
	case err != nil:
		return nil, err
	case x.XMLName.Local != g.action()+"Response" || len(all) != 1:
		return nil, fmt.Errorf("the token endpoint's answer is not one to %s, or has not one set of keys", g.action())
	}
	k := all[0]
	life, worth, err := (&body{ExpiresAt: k.Until}).life(a, now)
	if err != nil {
		return nil, errors.New("the keys' expiry is not a time")
	}
	value := make([]byte, 0, len(k.ID)+len(k.Secret)+len(k.Token)+2)
	value = append(append(append(append(append(value, k.ID...), ':'), k.Secret...), ':'), k.Token...)
	keys, err := control.ParseAWSKeys(value)
	if err != nil || len(value) > maxToken {
		secret.Wipe(value)
		return nil, errors.New("the answer's keys are incomplete, too long, or hold what no key of AWS holds")
	}
	asked := g.meta.Inject.RoleDuration() // whatever it says, it has not given more
	return &answered{access: value, parts: keyParts(keys), life: min(life, asked), worth: worth}, nil
}

var errNoXML = errors.New("the token endpoint's answer is not XML as STS has it")

// parseXML reads content into x. Nothing is declared in it: no entities, so none that grow.
func parseXML(content []byte, x *stsAnswer) error {
	d := xml.NewDecoder(bytes.NewReader(content))
	for depth := 0; ; {
		t, err := d.RawToken()
		if err != nil {
			break
		}
		switch t.(type) {
		case xml.StartElement:
			depth++
		case xml.EndElement:
			depth--
		case xml.Directive:
			return errNoXML
		}
		if depth > maxDepth {
			return errNoXML
		}
	}
	if xml.Unmarshal(content, x) != nil {
		return errNoXML
	}
	return nil
}

// stsCode returns an error code of AWS, if it looks like one.
func stsCode(codes []string) string {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ."
	if len(codes) != 1 || codes[0] == "" || len(codes[0]) > 64 || strings.Trim(codes[0], letters) != "" {
		return ""
	}
	return ", " + codes[0]
}
