package sign

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"torno.internal/protocol"
)

// vectorDir holds AWS's own test suite, beside the project. It is not part of it.
const vectorDir = "../../../../shared/vectors/sigv4"

// vectorCount is how many cases the suite has.
const vectorCount = 38

// vectors returns the cases of AWS's suite.
func vectors(t *testing.T) []string {
	t.Helper()
	dir := os.Getenv("TORNO_SIGV4_VECTORS")
	if dir == "" {
		dir = vectorDir
	}
	cases, err := filepath.Glob(filepath.Join(dir, "*", "context.json"))
	if err != nil {
		t.Fatal(err)
	}
	if len(cases) == 0 {
		t.Skipf("AWS's test suite is not at %s (try: TORNO_SIGV4_VECTORS=…/aws-c-auth/tests/aws-signing-test-suite/v4)", dir)
	}
	if len(cases) != vectorCount {
		t.Errorf("%d cases, want %d", len(cases), vectorCount)
	}
	return cases
}

// A vector is one case: a request and how it is to be signed.
type vector struct {
	Credentials struct {
		ID     string `json:"access_key_id"`
		Secret string `json:"secret_access_key"`
		Token  string `json:"token"`
	} `json:"credentials"`
	Expires   int       `json:"expiration_in_seconds"`
	Normalize bool      `json:"normalize"`
	OmitToken bool      `json:"omit_session_token"`
	Region    string    `json:"region"`
	Service   string    `json:"service"`
	SignBody  bool      `json:"sign_body"`
	Time      time.Time `json:"timestamp"`

	dir            string
	method, target string
	host           string
	fields         protocol.Fields
	body           string
}

func readVector(t *testing.T, context string) *vector {
	t.Helper()
	v := &vector{dir: filepath.Dir(context)}
	if err := json.Unmarshal([]byte(v.file(t, "context.json")), v); err != nil {
		t.Fatal(err)
	}
	head, body, _ := strings.Cut(v.file(t, "request.txt"), "\n\n")
	lines := strings.Split(strings.TrimRight(head, "\n"), "\n")
	v.body = body
	line := strings.TrimSuffix(lines[0], " HTTP/1.1")
	v.method, v.target, _ = strings.Cut(line, " ")
	for _, l := range lines[1:] {
		if strings.HasPrefix(l, " ") { // a folded line
			v.fields[len(v.fields)-1].Value += l
			continue
		}
		name, value, _ := strings.Cut(l, ":")
		if name = strings.ToLower(name); name == "host" {
			v.host = value
			continue
		}
		v.fields = append(v.fields, protocol.Field{Name: name, Value: value})
	}
	return v
}

func (v *vector) file(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(v.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(b), "\r\n", "\n")
}

// canonical makes the form of the request that is signed. own are the signature's fields or parameters.
func (v *vector) canonical(t *testing.T, fields protocol.Fields, query []parameter) *canonical {
	t.Helper()
	sum := sha256.Sum256([]byte(v.body))
	c := &canonical{method: v.method, payload: hex.EncodeToString(sum[:])}
	path, rawQuery, _ := strings.Cut(v.target, "?")
	rule := pathNormal
	if !v.Normalize {
		rule = pathAsSent
	}
	var err error
	if c.path, err = canonicalPath(path, rule); err != nil {
		t.Fatal(err)
	}
	if c.query, err = parseQuery(rawQuery); err != nil {
		t.Fatal(err)
	}
	c.query = append(c.query, query...)
	sortQuery(c.query)
	c.fields = canonicalFields(append(v.fields.Clone(), fields...), v.host, func(string) bool { return true })
	return c
}

func (v *vector) check(t *testing.T, kind string, c *canonical, key *awsKey) {
	t.Helper()
	text := c.appendTo(nil)
	if want := v.file(t, kind+"-canonical-request.txt"); string(text) != want {
		t.Errorf("%s: canonical request\n%s\nwant\n%s", kind, text, want)
	}
	signature, err := key.sign("", nil, sha256.Sum256(text))
	if want := strings.TrimSpace(v.file(t, kind+"-signature.txt")); err != nil || signature != want {
		t.Errorf("%s: signature %s, want %s (%v)", kind, signature, want, err)
	}
}

// TestSigV4Vectors runs AWS's own suite: the canonical request and the signature of every case, in the fields and in
// the query.
func TestSigV4Vectors(t *testing.T) {
	for _, context := range vectors(t) {
		v := readVector(t, context)
		t.Run(filepath.Base(v.dir), func(t *testing.T) {
			key := deriveKey([]byte(v.Credentials.Secret), scope{v.Region, v.Service}, v.Time)
			fields := protocol.Fields{{Name: "x-amz-date", Value: key.time}}
			if v.Credentials.Token != "" && !v.OmitToken {
				fields = append(fields, protocol.Field{Name: "x-amz-security-token", Value: v.Credentials.Token})
			}
			sum := sha256.Sum256([]byte(v.body))
			if v.SignBody {
				fields = append(fields, protocol.Field{Name: "x-amz-content-sha256", Value: hex.EncodeToString(sum[:])})
			}
			v.check(t, "header", v.canonical(t, fields, nil), key)

			c := v.canonical(t, nil, nil)
			add := func(name, value string) { c.query = append(c.query, parameter{name, escape(value)}) }
			add(paramAlgorithm, awsAlgorithm)
			add(paramKey, v.Credentials.ID+"/"+string(key.in.appendTo(nil, key.day())))
			add(paramDate, key.time)
			add(paramExpires, "3600")
			if v.Credentials.Token != "" && !v.OmitToken {
				add(paramToken, v.Credentials.Token)
			}
			add(paramCovered, string(c.appendNames(nil)))
			sortQuery(c.query)
			v.check(t, "query", c, key)
		})
	}
}
