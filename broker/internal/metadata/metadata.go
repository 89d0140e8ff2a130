// Package metadata answers what the SDKs of clouds ask the metadata service beside their machine for where nothing is
// configured: AWS's instance metadata service, version 2, and its endpoints for containers, Google's metadata server and
// Azure's instance metadata service. It holds no secret: the credentials that it gives out are placeholders, which are
// worth nothing anywhere but in the session's own requests, where the broker puts the real ones in their place.
package metadata

import (
	"crypto/sha256"
	"encoding/json"
	"net/url"
	"strconv"
	"strings"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// lifetime is how long SDKs are told that what they get is good for. It is good for as long as its session lasts; they
// ask anew some minutes before the end.
const lifetime = time.Hour

// Addresses of metadata services.
const (
	linkLocal   = "169.254.169.254"          // of all three
	linkLocal6  = "fd00:ec2::254"            // AWS
	tasks       = "169.254.170.2"            // AWS, beside containers of ECS
	pods        = "169.254.170.23"           // AWS, beside pods of EKS
	pods6       = "fd00:ec2::23"             // the same
	googleHost  = "metadata.google.internal" // Google
	googleField = "metadata-flavor"          // which its clients send, and want to see
)

// A place is a part of a host that one cloud's SDKs ask.
type place struct {
	cloud control.Cloud
	host  string
	path  string // a rule's, see docs/rules.md: "/**" at its end covers all below it
}

var places = []place{
	{control.CloudAWS, linkLocal, "/latest/**"},
	{control.CloudAWS, linkLocal6, "/latest/**"},
	{control.CloudAWS, tasks, "/v2/credentials"},
	{control.CloudAWS, tasks, "/v2/credentials/**"},
	{control.CloudAWS, pods, "/v1/credentials"},
	{control.CloudAWS, pods6, "/v1/credentials"},
	{control.CloudGoogle, linkLocal, "/"},
	{control.CloudGoogle, linkLocal, "/computeMetadata/**"},
	{control.CloudGoogle, googleHost, "/"},
	{control.CloudGoogle, googleHost, "/computeMetadata/**"},
	{control.CloudAzure, linkLocal, "/metadata/**"},
}

// Rules returns the rules that let a session's SDKs ask for what is cloud's. The caller owns the result.
func Rules(cloud control.Cloud) []string {
	var rules []string
	for _, p := range places {
		if p.cloud == cloud {
			host := p.host
			if strings.Contains(host, ":") {
				host = "[" + host + "]"
			}
			rules = append(rules, "http://"+host+p.path)
		}
	}
	return rules
}

// CloudOf returns the cloud whose metadata service a request over http is for, or none. The path is read as it stands:
// what is spelled otherwise is no cloud's.
func CloudOf(a protocol.Authority, path string) control.Cloud {
	if a.Port != protocol.DefaultPort("http") {
		return ""
	}
	path, _, _ = strings.Cut(path, "?")
	for _, p := range places {
		below, all := strings.CutSuffix(p.path, "**")
		if a.Host == p.host && (path == p.path || all && strings.HasPrefix(path, below)) {
			return p.cloud
		}
	}
	return ""
}

// A Service is what one session's SDKs may learn. It is immutable and safe for concurrent use.
type Service struct {
	Key    [sha256.Size]byte // that tokens of AWS's service are made with; the session's own
	AWS    *AWS              // nil: the session has no secret of this cloud
	Google *Google           // as well
	Azure  *Azure            // as well
}

// An Answer is a response and its content. The zero value is none.
type Answer struct {
	protocol.Response
	Content []byte
}

// Answer returns the answer to a request at now that CloudOf says a cloud of. ok is false where the session has no secret
// of that cloud.
func (s *Service) Answer(cloud control.Cloud, req *protocol.Request, now time.Time) (a Answer, ok bool) {
	path, text, _ := strings.Cut(req.Path, "?")
	query, err := url.ParseQuery(text)
	if err != nil {
		return plain(400, "the query is malformed"), true
	}
	q := &question{Request: req, path: path, query: query, now: now.UTC()}
	switch {
	case cloud == control.CloudAWS && s.AWS != nil:
		return s.AWS.answer(&s.Key, q), true
	case cloud == control.CloudGoogle && s.Google != nil:
		return s.Google.answer(q), true
	case cloud == control.CloudAzure && s.Azure != nil:
		return s.Azure.answer(q), true
	}
	return Answer{}, false
}

// A question is a request, taken apart.
type question struct {
	*protocol.Request
	path  string
	query url.Values
	now   time.Time
}

// forwarded reports whether a proxy says that it is somebody else who asks. Metadata services refuse those, since it may be a
// server that was talked into it.
func (q *question) forwarded() bool { return q.Fields.Count("x-forwarded-for") > 0 }

// reads reports whether the method is one that changes nothing.
func (q *question) reads() bool { return q.Method == "GET" || q.Method == "HEAD" }

// answer returns an Answer with content of a media type, and more fields.
func answer(status int, kind string, content []byte, more ...protocol.Field) Answer {
	fields := protocol.Fields{
		{Name: "content-type", Value: kind},
		{Name: "content-length", Value: strconv.Itoa(len(content))},
		{Name: "cache-control", Value: "no-store"},
	}
	return Answer{protocol.Response{Status: status, Fields: append(fields, more...)}, content}
}

func plain(status int, text string, more ...protocol.Field) Answer {
	return answer(status, "text/plain; charset=utf-8", []byte(text), more...)
}

// document returns an Answer whose content is v in JSON. v is made of strings, numbers, lists and maps of strings.
func document(status int, v any, more ...protocol.Field) Answer {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // our own mistake
	}
	return answer(status, "application/json", b, more...)
}
