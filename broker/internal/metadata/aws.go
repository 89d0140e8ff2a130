package metadata

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"strconv"
	"strings"
	"time"

	"torno.internal/protocol"
)

// An AWS is what SDKs for AWS may learn.
type AWS struct {
	Placeholder string // stands for the id of a key, the key and its session's token
	Region      string // that all of the session's secrets are for; empty: none is said, or several
}

// role is the name of the one role whose credentials there are.
const role = "torno"

// Fields of version 2 of the instance metadata service.
const (
	fieldToken = "x-aws-ec2-metadata-token"
	fieldTTL   = "x-aws-ec2-metadata-token-ttl-seconds"
	maxTTL     = 21600 // seconds
)

const (
	pathToken    = "/latest/api/token"
	pathData     = "/latest/meta-data/"
	pathIdentity = "/latest/dynamic/instance-identity/document"
)

func (a *AWS) answer(key *[sha256.Size]byte, q *question) Answer {
	switch {
	case q.path == pathToken:
		return issueToken(key, q)
	case !q.reads():
		return plain(405, "method not allowed")
	case !strings.HasPrefix(q.path, "/latest/"): // beside a container: its own address is its identity
		return document(200, a.credentials(q.now))
	case !holdsToken(key, q):
		return plain(401, "unauthorized")
	case q.path == pathIdentity && a.Region != "":
		return document(200, map[string]string{"region": a.Region})
	}
	name, ok := strings.CutPrefix(q.path, pathData)
	if !ok {
		return plain(404, "not found")
	}
	return a.data(name, q.now)
}

// data answers for one name of the instance's metadata.
func (a *AWS) data(name string, now time.Time) Answer {
	switch {
	case name == "iam/security-credentials" || name == "iam/security-credentials/":
		return plain(200, role)
	case name == "iam/security-credentials/"+role:
		return document(200, a.credentials(now))
	case name == "placement/region" && a.Region != "":
		return plain(200, a.Region)
	case name == "placement/availability-zone" && a.Region != "":
		return plain(200, a.Region+"a") // SDKs cut the letter off again
	}
	return plain(404, "not found")
}

// awsCredentials are those of a role, in the form of both of AWS's services.
type awsCredentials struct {
	Code            string
	LastUpdated     string
	Type            string
	AccessKeyID     string `json:"AccessKeyId"`
	SecretAccessKey string
	Token           string
	Expiration      string
}

func (a *AWS) credentials(now time.Time) awsCredentials {
	return awsCredentials{
		Code: "Success", Type: "AWS-HMAC", LastUpdated: now.Format(time.RFC3339), Expiration: now.Add(lifetime).Format(time.RFC3339),
		AccessKeyID: a.Placeholder, SecretAccessKey: a.Placeholder, Token: a.Placeholder,
	}
}

// issueToken answers who wants to ask further: a token for so many seconds. Servers that can be talked into sending a GET
// can't send this.
func issueToken(key *[sha256.Size]byte, q *question) Answer {
	switch {
	case q.Method != "PUT":
		return plain(405, "method not allowed")
	case q.forwarded():
		return plain(403, "forbidden")
	case q.Fields.Count(fieldTTL) != 1:
		return plain(400, fieldTTL+" must be there once")
	}
	seconds, err := strconv.Atoi(q.Fields.Get(fieldTTL))
	if err != nil || seconds < 1 || seconds > maxTTL {
		return plain(400, fieldTTL+" must be from 1 to "+strconv.Itoa(maxTTL))
	}
	token := signToken(key, q.now.Add(time.Duration(seconds)*time.Second))
	return plain(200, token, protocol.Field{Name: fieldTTL, Value: strconv.Itoa(seconds)})
}

// A token is when it expires, in seconds since 1970 as 8 bytes, and an HMAC over that, in base64url. Nothing is kept of it,
// so there may be as many as somebody likes.
func signToken(key *[sha256.Size]byte, expires time.Time) string {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, 8+sha256.Size), uint64(expires.Unix()))
	m := hmac.New(sha256.New, key[:])
	m.Write(b)
	return base64.URLEncoding.EncodeToString(m.Sum(b))
}

// holdsToken reports whether the request has the one token of this session that has not expired.
func holdsToken(key *[sha256.Size]byte, q *question) bool {
	if q.Fields.Count(fieldToken) != 1 {
		return false
	}
	token := q.Fields.Get(fieldToken)
	b, err := base64.URLEncoding.DecodeString(token)
	if err != nil || len(b) != 8+sha256.Size {
		return false
	}
	expires := time.Unix(int64(binary.BigEndian.Uint64(b)), 0)
	return subtle.ConstantTimeCompare([]byte(token), []byte(signToken(key, expires))) == 1 && q.now.Before(expires)
}
