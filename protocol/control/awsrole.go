package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Parameters of SchemeAWSRole and SchemeAWSWebIdentity, besides those of SchemeSigV4.
const (
	ParamRole       = "role"        // the ARN of the role
	ParamSTS        = "sts"         // the URL of the endpoint; left out: the region's own
	ParamSession    = "session"     // RoleSessionName; left out: "torno-" and the agent's name
	ParamDuration   = "duration"    // seconds that keys are asked for
	ParamExternalID = "external-id" // what the role's owner wants to see, so that nobody is talked into using it
	ParamPolicy     = "policy"      // a session policy: JSON that narrows what the role may do
	ParamPolicyARNs = "policy-arns" // managed policies that do, with spaces between
)

// Bounds that STS sets (AssumeRole in its API reference).
const (
	minRoleDuration = 15 * time.Minute
	maxRoleDuration = 12 * time.Hour
	maxRoleSession  = 64 // bytes
	maxExternalID   = 1224
	maxPolicyARNs   = 10
	maxWebIdentity  = 20000
)

// DefaultRoleDuration is how long temporary keys are asked for.
const DefaultRoleDuration = time.Hour

// roleParams returns the parameters of a scheme that assumes a role.
func roleParams(more ...param) []param {
	return slices.Concat(scopeParams(), []param{
		{ParamRole, true, checkRoleARN}, {ParamSTS, false, checkTokenURL},
		{ParamSession, false, checkRoleSession}, {ParamDuration, false, checkRoleDuration},
		{ParamPolicy, false, checkRolePolicy}, {ParamPolicyARNs, false, checkPolicyARNs},
	}, more)
}

// stsDomains are where each partition has its endpoints of STS.
var stsDomains = map[string]string{"aws": "amazonaws.com", "aws-us-gov": "amazonaws.com", "aws-cn": "amazonaws.com.cn"}

// stsURL returns the endpoint that keys are got from; empty where neither it nor a region is named.
func stsURL(in Injector) string {
	if s := in.Param(ParamSTS); s != "" {
		return s
	}
	partition := strings.SplitN(in.Param(ParamRole), ":", 3)
	if in.Param(ParamRegion) == "" || len(partition) < 3 || stsDomains[partition[1]] == "" {
		return ""
	}
	return "https://sts." + in.Param(ParamRegion) + "." + stsDomains[partition[1]]
}

func checkRoleParams(_ string, in Injector) error {
	if stsURL(in) == "" {
		return fmt.Errorf("the %s scheme needs region=…, whose STS it asks, or sts=https://… with the endpoint", in.Scheme)
	}
	return nil
}

// RoleDuration returns how long temporary keys are asked for.
func (in Injector) RoleDuration() time.Duration {
	if n, err := strconv.Atoi(in.Param(ParamDuration)); err == nil {
		return time.Duration(n) * time.Second
	}
	return DefaultRoleDuration
}

// RoleSession returns the name that the role's sessions have in the records of AWS.
func (m Meta) RoleSession() string {
	name := m.Inject.ParamOr(ParamSession, "torno-"+m.Agent)
	return name[:min(len(name), maxRoleSession)]
}

func checkRoleARN(_, s string) error {
	parts := strings.SplitN(s, ":", 6)
	if len(parts) != 6 || parts[0] != "arn" || !strings.HasPrefix(parts[1], "aws") || parts[2] != "iam" || parts[3] != "" ||
		len(parts[4]) != 12 || strings.Trim(parts[4], "0123456789") != "" || !strings.HasPrefix(parts[5], "role/") || !isAWSName(parts[5], "/") {
		return fmt.Errorf("%q is not a role's ARN, arn:aws:iam::123456789012:role/NAME", s)
	}
	return nil
}

func checkRoleSession(_, s string) error {
	if len(s) < 2 || len(s) > maxRoleSession || !isAWSName(s, "") {
		return fmt.Errorf("%q is not 2 to %d letters, digits and _+=,.@-", s, maxRoleSession)
	}
	return nil
}

func checkExternalID(_, s string) error {
	if len(s) < 2 || len(s) > maxExternalID || !isAWSName(s, ":/") {
		return fmt.Errorf("%q is not 2 to %d letters, digits and _+=,.@:/-", s, maxExternalID)
	}
	return nil
}

// isAWSName reports whether s is of the characters that IAM's names have, and of those in more.
func isAWSName(s, more string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+=,.@-"+more) == ""
}

func checkRoleDuration(_, s string) error {
	n, err := strconv.Atoi(s)
	if d := time.Duration(n) * time.Second; err != nil || strconv.Itoa(n) != s || d < minRoleDuration || d > maxRoleDuration {
		return fmt.Errorf("%q is not seconds, %.0f to %.0f", s, minRoleDuration.Seconds(), maxRoleDuration.Seconds())
	}
	return nil
}

func checkRolePolicy(_, s string) error {
	if !strings.HasPrefix(s, "{") || !json.Valid([]byte(s)) {
		return errors.New("it is not a policy in JSON; as the value of a parameter a comma in it is written %2C")
	}
	return nil
}

func checkPolicyARNs(_, s string) error {
	arns := strings.Split(s, " ")
	if len(arns) > maxPolicyARNs {
		return fmt.Errorf("%d policies, at most %d fit", len(arns), maxPolicyARNs)
	}
	for _, arn := range arns {
		if !strings.HasPrefix(arn, "arn:aws") || !strings.Contains(arn, ":policy/") || !isAWSName(arn, ":/") {
			return fmt.Errorf("%q is not a policy's ARN", arn)
		}
	}
	return nil
}

// IsPrivatePEM reports whether value is meant to be a private key in PEM.
func IsPrivatePEM(value []byte) bool { return bytes.HasPrefix(value, []byte("-----BEGIN ")) }

// checkWebIdentity accepts a token that somebody else signed, or the key to sign such tokens with.
func checkWebIdentity(in Injector, value []byte) error {
	if IsPrivatePEM(value) {
		if in.Param("iss") == "" || in.Param("sub") == "" {
			return errors.New("a private key signs tokens, which need iss=… and sub=…")
		}
		return checkKey(in, value)
	}
	for _, name := range []string{"iss", "sub", "aud", "alg", "kid"} {
		if in.Param(name) != "" {
			return fmt.Errorf("the value is a token, which says %s by itself; the parameter goes with a private key in PEM", name)
		}
	}
	if len(value) > maxWebIdentity || bytes.Count(value, []byte(".")) != 2 {
		return errors.New("the value is neither a token with two dots (a JWT) nor a private key in PEM")
	}
	return checkToken(in, value)
}
