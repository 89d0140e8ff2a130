package control

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"torno.internal/protocol"
)

// Limits on the parameters of a scheme.
const (
	MaxParams = 16      // of one secret
	MaxParam  = 2 << 10 // bytes of one value
)

// A Param is one parameter of a scheme. Those of one Injector are ordered by name, and none stands twice.
type Param struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Param returns the value of the parameter called name, or "".
func (in Injector) Param(name string) string {
	for _, p := range in.Params {
		if p.Name == name {
			return p.Value
		}
	}
	return ""
}

// String returns the injector as --as takes it, without its fields.
func (in Injector) String() string {
	var b strings.Builder
	b.WriteString(in.Scheme)
	for i, p := range in.Params {
		b.WriteByte(":,"[min(i, 1)])
		b.WriteString(p.Name + "=" + paramEscapes.Replace(p.Value))
	}
	return b.String()
}

// paramEscapes and paramUnescapes spell what separates parameters where it is part of a value.
var (
	paramEscapes   = strings.NewReplacer("%", "%25", ",", "%2C")
	paramUnescapes = strings.NewReplacer("%25", "%", "%2C", ",", "%2c", ",")
)

// ParseScheme reads SCHEME[:NAME=VALUE,…], as --as takes it. In a value %2C is a comma and %25 a percent
// sign. What the parameters mean is for CheckMeta to judge.
func ParseScheme(text string) (Injector, error) {
	name, rest, ok := strings.Cut(text, ":")
	in := Injector{Scheme: name}
	if _, known := schemes[name]; !known {
		return Injector{}, fmt.Errorf("scheme %q is none of %s", name, strings.Join(Schemes(), ", "))
	}
	if !ok {
		return in, nil
	}
	for pair := range strings.SplitSeq(rest, ",") {
		name, value, ok := strings.Cut(pair, "=")
		if !ok || name == "" {
			return Injector{}, fmt.Errorf("%q is not NAME=VALUE", pair)
		}
		in.Params = append(in.Params, Param{name, paramUnescapes.Replace(value)})
	}
	slices.SortStableFunc(in.Params, func(a, b Param) int { return strings.Compare(a.Name, b.Name) })
	return in, nil
}

// Schemes returns the names of all schemes in order.
func Schemes() []string {
	names := make([]string, 0, len(schemes))
	for name := range schemes {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// SchemeParams returns the names of the parameters that a scheme takes, in order.
func SchemeParams(scheme string) []string {
	var names []string
	for _, p := range schemes[scheme].params {
		names = append(names, p.name)
	}
	slices.Sort(names)
	return names
}

// A scheme is one row of the table of all that a secret can be put to use by.
type scheme struct {
	params []param
	check  func(key string, in Injector) error // what params together must be; nil: anything
	value  func(in Injector, value []byte) error
	mints  func(in Injector) string // the URL of the token endpoint, empty where the broker makes tokens itself; nil: the secret itself is sent
	signs  bool                     // the secret is never sent, and proofs made with it are
	fields bool                     // it takes headers
	cloud  Cloud                    // whose SDKs it authorises
}

// A param is one parameter that a scheme takes.
type param struct {
	name  string
	must  bool
	check func(key, value string) error
}

var schemes = map[string]scheme{
	SchemeBearer: {value: checkToken},
	SchemeHeader: {check: func(key string, in Injector) error { return checkFields(key, in.Fields) }, value: checkFieldPart, fields: true},
	SchemeBasic: {
		params: []param{{"user", false, checkUser}, {"template", false, checkTemplate}},
		check:  checkBasic, value: checkPassword,
	},
	SchemeGit:    {params: []param{{"user", false, checkUser}, {"host", false, checkHost}}, value: checkGitToken},
	SchemeQuery:  {params: []param{{"name", true, checkParameterName}}, value: checkTargetPart},
	SchemePath:   {params: []param{{"template", true, checkPathTemplate}}, value: checkPathPart},
	SchemeCookie: {params: []param{{"name", true, checkCookieName}}, value: checkCookieValue},

	SchemeClientCert: {value: checkClientCert},

	SchemeOAuth2: {
		params: tokenParams(param{"id", true, checkWord}, param{"auth", false, checkAuth}, param{"alg", false, checkAlg}, param{"kid", false, checkWord}),
		value:  checkClientSecret, mints: tokenParam,
	},
	SchemeRefresh: {
		params: tokenParams(param{"id", false, checkWord}, param{"auth", false, checkAuth}),
		value:  checkRefresh, mints: tokenParam,
	},
	SchemeAssertion: {
		params: tokenParams(param{"iss", true, checkWord}, param{"sub", false, checkWord}, param{"aud", false, checkWord},
			param{"alg", false, checkAlg}, param{"kid", false, checkWord}),
		value: checkKey, mints: tokenParam,
	},
	SchemeTokenExchange: {
		params: tokenParams(param{"id", false, checkWord}, param{"subject-type", false, checkWord}),
		value:  checkSent, mints: tokenParam,
	},
	SchemeGitHubApp: {
		params: []param{{"app", true, checkSegment}, {"installation", true, checkSegment}, {"api", false, checkTokenURL}},
		value:  checkKey, mints: gitHubTokens,
	},
	SchemeGoogle: {
		params: []param{{"scope", false, checkScope}, {"audience", false, checkScope}, {"token", false, checkTokenURL}},
		check:  checkGoogle, value: checkGoogleKey, mints: googleTokens, cloud: CloudGoogle,
	},
	SchemeAzure: {
		params: []param{{"tenant", true, checkSegment}, {"id", true, checkWord}, {"scope", false, checkScope}, {"login", false, checkTokenURL}},
		value:  checkSent, mints: azureTokens, cloud: CloudAzure,
	},
	SchemeRegistry: {
		params: []param{{"realm", true, checkTokenURL}, {"service", false, checkWord}, {"user", false, checkUser}},
		value:  checkSent, mints: func(in Injector) string { return in.Param("realm") },
	},
	SchemeSSH: {
		params: []param{{ParamKnownHosts, true, checkKnownHosts}, {ParamUser, false, checkRole}},
		value:  checkPrivateKey,
	},
	SchemePostgres: {
		params: []param{
			{ParamUser, true, checkRole}, {ParamDatabase, false, checkRole},
			{ParamTLS, false, oneOf(TLSVerify, TLSOff)}, {ParamAuth, false, oneOf(AuthScram, AuthMD5, AuthPlain)},
		},
		value: checkRolePassword,
	},
	SchemeMessage: {
		params: []param{
			{"alg", true, checkMessageAlg}, {"keyid", true, checkQuoted}, {"label", false, checkLabel}, {"tag", false, checkQuoted},
			{"components", false, checkComponents}, {"expires", false, checkExpires}, {ParamKey, false, oneOf(CodingRaw, CodingBase64)},
		},
		value: checkSigningKey, signs: true,
	},
	SchemeSigV4: {params: scopeParams(), value: checkAWSKeys, signs: true, cloud: CloudAWS},
	SchemeHMAC: {
		params: []param{
			{ParamPreset, false, checkLater}, {ParamSign, false, checkFormula}, {ParamInner, false, checkFormula}, {ParamHash, false, oneOf(Hashes...)},
			{ParamKey, false, oneOf(CodingRaw, CodingHex, CodingBase64, CodingBase64URL)}, {ParamKeyPrefix, false, checkWord},
			{ParamOut, false, oneOf(CodingHex, CodingBase64, CodingBase64URL)}, {ParamQuery, false, checkLater},
		},
		check: checkHMAC, value: checkHMACKey, signs: true, fields: true,
	},
	SchemeAWSRole: {
		params: roleParams(param{ParamExternalID, false, checkExternalID}),
		check:  checkRoleParams, value: checkAWSKeys, mints: stsURL, signs: true, cloud: CloudAWS,
	},
	SchemeAWSWebIdentity: {
		params: roleParams(param{"iss", false, checkWord}, param{"sub", false, checkWord}, param{"aud", false, checkWord},
			param{"alg", false, checkAlg}, param{"kid", false, checkWord}),
		check: checkRoleParams, value: checkWebIdentity, mints: stsURL, signs: true, cloud: CloudAWS,
	},
	SchemeJWT: {
		params: jwtParams(), check: checkJWT, value: checkJWTKey, fields: true,
		mints: func(Injector) string { return "" }, // by itself
	},
	SchemeJWTRequest: {
		params: jwtParams(param{ParamPreset, false, checkLater}), check: checkJWT, value: checkJWTKey, fields: true, signs: true,
	},
	SchemeAzureStorage: {
		params: []param{{ParamAccount, true, checkAccount}, {ParamService, false, oneOf(ServiceBlob, ServiceQueue, ServiceFile, ServiceTable)}},
		value:  checkAccountKey, signs: true,
	},

	SchemeContent: {value: func(_ Injector, value []byte) error { return checkContent(value) }},
}

// checkInjector accepts an injector whose scheme is known and has what it needs, and nothing else.
func checkInjector(key string, in Injector) error {
	s, ok := schemes[in.Scheme]
	switch {
	case !ok:
		return fmt.Errorf("scheme %q is none of %s", in.Scheme, strings.Join(Schemes(), ", "))
	case len(in.Fields) > 0 && !s.fields:
		return fmt.Errorf("the %s scheme takes no headers", in.Scheme)
	case len(in.Params) > MaxParams:
		return fmt.Errorf("%d parameters, at most %d fit", len(in.Params), MaxParams)
	}
	if err := s.checkParams(key, in); err != nil {
		return err
	}
	if s.check != nil {
		return s.check(key, in)
	}
	return nil
}

func (s scheme) checkParams(key string, in Injector) error {
	for i, p := range in.Params {
		at := slices.IndexFunc(s.params, func(k param) bool { return k.name == p.Name })
		switch {
		case at < 0:
			return fmt.Errorf("the %s scheme has no parameter %q; it takes %s", in.Scheme, p.Name, orNone(SchemeParams(in.Scheme)))
		case i > 0 && in.Params[i-1].Name >= p.Name:
			return fmt.Errorf("parameters are not in order, each once: %q", p.Name)
		case p.Value == "" || len(p.Value) > MaxParam:
			return fmt.Errorf("parameter %s has %d bytes, 1 to %d are wanted", p.Name, len(p.Value), MaxParam)
		case badFieldByte([]byte(p.Value)) >= 0:
			return fmt.Errorf("parameter %s is %q; visible ASCII is wanted", p.Name, p.Value)
		}
		if err := s.params[at].check(key, p.Value); err != nil {
			return fmt.Errorf("parameter %s: %w", p.Name, err)
		}
	}
	for _, k := range s.params {
		if k.must && in.Param(k.name) == "" {
			return fmt.Errorf("the %s scheme needs %s=…", in.Scheme, k.name)
		}
	}
	return nil
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// checkUser accepts a user of the Basic scheme (RFC 7617 §2).
func checkUser(_, user string) error {
	if strings.ContainsAny(user, ":") {
		return fmt.Errorf("user %q holds a colon, which ends it", user)
	}
	return nil
}

// checkHost accepts a host's name, or host:port, in its canonical form.
func checkHost(_, host string) error {
	a, err := protocol.ParseAuthority(host, protocol.DefaultPort("https"))
	if err == nil && FormatOrigin(a) != "https://"+host {
		err = fmt.Errorf("host %q is not in its canonical form %q", host, strings.TrimPrefix(FormatOrigin(a), "https://"))
	}
	return err
}

func checkTemplate(key, template string) error {
	_, err := ParseTemplate(key, template)
	return err
}

func checkBasic(_ string, in Injector) error {
	if in.Param("user") != "" && in.Param("template") != "" {
		return errors.New("the basic scheme takes user or template, not both")
	}
	return nil
}

// checkParameterName accepts a query parameter's name that is the same encoded.
func checkParameterName(_, name string) error {
	if url.QueryEscape(name) != name {
		return fmt.Errorf("%q is not a parameter's name: letters, digits and -._~", name)
	}
	return nil
}

func checkCookieName(_, name string) error {
	if !protocol.IsToken(name) {
		return fmt.Errorf("%q is not a cookie's name", name)
	}
	return nil
}

// checkPathTemplate accepts a path that every server reads as it stands, with a hole in one of its segments.
func checkPathTemplate(key, template string) error {
	t, err := ParseTemplate(key, template)
	if err != nil {
		return err
	}
	plain := t.Prefix + "x" + t.Suffix
	switch {
	case !strings.HasPrefix(t.Prefix, "/"):
		return fmt.Errorf("template %q does not begin with a slash", template)
	case strings.ContainsAny(plain, `%?#;\ "<>^{}|`+"`"):
		return fmt.Errorf("template %q holds what servers read in several ways", template)
	case strings.Contains(plain, "//") || strings.Contains(plain, "/."):
		return fmt.Errorf("template %q is not in its normal form", template)
	}
	return nil
}
