package sign

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"os"
	"os/exec"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

const (
	azureKey  = "S1lRTXpuTWxhR3V1dG1iTmNTUXJQWmtTd3B6eE1xdFhYVVlVaGVOdUxEaGVpSEtIVVVkdU1aZkJOSGhP"
	azureHost = "myaccount.blob.core.windows.net"
)

// azureText is what is signed, of what is known of the examples in the service's documentation: all else is empty.
func azureText(method string, known map[string]string, canonical string) string {
	text := method
	for _, name := range azureSigned {
		text += "\n" + known[name]
	}
	return text + "\n" + canonical
}

// TestAzureText compares what is signed with the examples of "Authorize with Shared Key", whose own texts these are.
func TestAzureText(t *testing.T) {
	at := func(date string) time.Time { d, _ := time.Parse(httpTime, date); return d }
	tests := []struct {
		method, host, target string
		fields               protocol.Fields
		length               int64
		now, want            string
	}{
		{"GET", azureHost, "/mycontainer?restype=container&comp=metadata&timeout=20", protocol.Fields{{Name: "x-ms-version", Value: "2015-02-21"}}, 0,
			"Fri, 26 Jun 2015 23:39:12 GMT", azureText("GET", nil, "x-ms-date:Fri, 26 Jun 2015 23:39:12 GMT\nx-ms-version:2015-02-21\n/myaccount/mycontainer\ncomp:metadata\nrestype:container\ntimeout:20")},
		{"PUT", azureHost, "/mycontainer?restype=container&timeout=30", protocol.Fields{{Name: "x-ms-version", Value: "2015-02-21"}, {Name: "x-ms-meta-name", Value: " value"}}, 0,
			"Fri, 26 Jun 2015 23:39:12 GMT", azureText("PUT", nil, "x-ms-date:Fri, 26 Jun 2015 23:39:12 GMT\nx-ms-meta-name:value\nx-ms-version:2015-02-21\n/myaccount/mycontainer\nrestype:container\ntimeout:30")},
		{"PUT", azureHost, "/mycontainer/hello.txt", protocol.Fields{{Name: "x-ms-version", Value: "2015-02-21"}, {Name: "x-ms-blob-type", Value: "BlockBlob"},
			{Name: "x-ms-meta-m2", Value: "v2"}, {Name: "x-ms-meta-m1", Value: "v1"}, {Name: "content-type", Value: "text/plain; charset=UTF-8"}}, 11,
			"Sun, 20 Sep 2009 20:36:40 GMT", azureText("PUT", map[string]string{"content-length": "11", "content-type": "text/plain; charset=UTF-8"},
				"x-ms-blob-type:BlockBlob\nx-ms-date:Sun, 20 Sep 2009 20:36:40 GMT\nx-ms-meta-m1:v1\nx-ms-meta-m2:v2\nx-ms-version:2015-02-21\n/myaccount/mycontainer/hello.txt")},
		{"GET", azureHost, "/container?restype=container&comp=list&include=snapshots&include=uncommittedblobs&include=metadata", protocol.Fields{{Name: "x-ms-version", Value: "2015-02-21"}, {Name: "range", Value: "bytes=0-9"}}, 0,
			"Fri, 26 Jun 2015 23:39:12 GMT", azureText("GET", map[string]string{"range": "bytes=0-9"},
				"x-ms-date:Fri, 26 Jun 2015 23:39:12 GMT\nx-ms-version:2015-02-21\n/myaccount/container\ncomp:list\ninclude:metadata,snapshots,uncommittedblobs\nrestype:container")},
		{"GET", "myaccount.table.core.windows.net", "/Tables()?$top=1&comp=x", nil, 0, "Fri, 26 Jun 2015 23:39:12 GMT", "GET\n\n\nFri, 26 Jun 2015 23:39:12 GMT\n/myaccount/Tables()?comp=x"},
	}
	for _, tt := range tests {
		s := newTestSigner(t, "azure-storage:account=myaccount").(*sharedKey)
		r := &Request{Method: tt.method, Host: tt.host, Target: tt.target, Fields: tt.fields, Length: tt.length}
		p, err := s.Plan(r)
		if err != nil {
			t.Fatal(err)
		}
		fields := append(protocol.Fields{{Name: azureDate, Value: at(tt.now).Format(httpTime)}}, tt.fields...)
		if got, err := p.(*sharedKeyPlan).text(r, fields); err != nil || string(got) != tt.want {
			t.Errorf("%s %s:\n%q, %v; want\n%q", tt.method, tt.target, got, err, tt.want)
		}
	}
}

// azureRequest draws a request as SDKs make them.
func azureRequest(t *rapid.T) *Request {
	word := rapid.StringMatching(`[a-zA-Z0-9 _.~&=/*'()!$,;@üΩ世-]{1,12}`)
	r := &Request{Method: rapid.SampledFrom([]string{"GET", "PUT", "HEAD", "DELETE", "POST"}).Draw(t, "method"), Host: azureHost, Target: "/"}
	for _, segment := range rapid.SliceOfN(word, 1, 3).Draw(t, "path") {
		r.Target += escape(strings.Trim(segment, ".")+"x") + "/"
	}
	names := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"comp", "restype", "prefix", "marker", "timeout", "snapshot"}), 0, 4, rapid.ID).Draw(t, "query")
	mark := "?"
	for _, name := range names {
		r.Target += mark + name + "=" + escape(word.Draw(t, "value"))
		mark = "&"
	}
	all := []string{"x-ms-version", "x-ms-meta-a_b", "x-ms-meta-a-b", "x-ms-meta-ab", "x-ms-meta-a", "x-ms-meta-b1", "x-ms-meta-a'b", "x-ms-meta--", "x-ms-meta-a.b", "x-ms-blob-type",
		"content-type", "content-md5", "if-match", "if-none-match", "content-language", "user-agent"}
	for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom(all), 0, 8, rapid.ID).Draw(t, "fields") {
		r.Fields = append(r.Fields, protocol.Field{Name: name, Value: rapid.StringMatching(`[a-zA-Z0-9;=/,.]{1,10}`).Draw(t, "field")})
	}
	if r.Method == "PUT" || r.Method == "POST" {
		r.Length = rapid.Int64Range(0, 1<<40).Draw(t, "length")
	}
	return r
}

// An azureAsk is what the package signs.
type azureAsk struct {
	Method  string            `json:"method"`
	URL     string            `json:"url"`
	Account string            `json:"account"`
	Key     string            `json:"key"`
	Headers map[string]string `json:"headers"`
}

// TestAzureAgainstPackage signs requests of many shapes and compares each signature with that of Azure's own package for Python.
func TestAzureAgainstPackage(t *testing.T) {
	packages := clientPackage(t, "python")
	s := newTestSigner(t, "azure-storage:account=myaccount")
	var asks []azureAsk
	var want []string
	draw := rapid.Custom(azureRequest)
	for i := range 300 {
		r := draw.Example(i)
		fields, err := signMessage(s, azureKey, r)
		if err != nil {
			t.Fatal(err)
		}
		a := azureAsk{r.Method, "https://" + r.Host + r.Target, "myaccount", azureKey, map[string]string{"content-length": strconv.FormatInt(r.Length, 10)}}
		for _, f := range fields {
			a.Headers[f.Name] = f.Value
		}
		want = append(want, strings.ReplaceAll(a.Headers["authorization"], " ", "_"))
		delete(a.Headers, "authorization")
		asks = append(asks, a)
	}
	cmd := exec.CommandContext(t.Context(), "/usr/bin/python3", "testdata/sharedkey.py")
	cmd.Env = append(os.Environ(), "PYTHONPATH="+packages, "PYTHONDONTWRITEBYTECODE=1")
	got := ask(t, cmd, asks)
	if len(got) != len(want) {
		t.Fatalf("%d signatures, want %d", len(got), len(want))
	}
	for i := range got {
		if got[i] != want[i] {
			t.Errorf("%+v: the package signs %s, we %s", asks[i], got[i], want[i])
		}
	}
}

// verifyAzure checks a request as the service documents it, written apart from the signer, for requests without a query.
func verifyAzure(r *Request, fields protocol.Fields, length int64) bool {
	text := r.Method + "\n" + fields.Get("content-encoding") + "\n" + fields.Get("content-language") + "\n"
	if length > 0 {
		text += strconv.FormatInt(length, 10)
	}
	for _, name := range strings.Fields("content-md5 content-type date if-modified-since if-match if-none-match if-unmodified-since range") {
		text += "\n" + fields.Get(name)
	}
	var own []string
	for _, f := range fields {
		if strings.HasPrefix(f.Name, "x-ms-") {
			own = append(own, f.Name+":"+f.Value)
		}
	}
	sort.Strings(own)
	text += "\n" + strings.Join(own, "\n") + "\n/myaccount" + r.Target
	key, _ := base64.StdEncoding.DecodeString(azureKey)
	m := hmac.New(sha256.New, key)
	m.Write([]byte(text))
	date, err := time.Parse(httpTime, fields.Get("x-ms-date"))
	return err == nil && testNow.Sub(date).Abs() < 15*time.Minute &&
		fields.Get("authorization") == "SharedKey myaccount:"+base64.StdEncoding.EncodeToString(m.Sum(nil))
}

// TestAzureBinds changes one thing of a signed request at a time.
func TestAzureBinds(t *testing.T) {
	s := newTestSigner(t, "azure-storage:account=myaccount")
	base := func() *Request {
		return &Request{Method: "PUT", Host: azureHost, Target: "/c/b.txt", Length: 7, Fields: protocol.Fields{
			{Name: "content-type", Value: "text/plain"}, {Name: "authorization", Value: "SharedKey myaccount:own"}, {Name: "Date", Value: "own"},
			{Name: "x-ms-date", Value: "own"}, {Name: "x-ms-blob-type", Value: "BlockBlob"}}}
	}
	fields, err := signMessage(s, azureKey, base())
	if err != nil || !verifyAzure(base(), fields, 7) || fields.Count("x-ms-date") != 1 || fields.Count("date") != 0 {
		t.Fatalf("%v: %v", err, fields)
	}
	change := func(name, value string) protocol.Fields {
		return append(fields.Clone().DelFunc(func(f protocol.Field) bool { return f.Name == name }), protocol.Field{Name: name, Value: value})
	}
	method, path := base(), base()
	method.Method, path.Target = "POST", "/c/b.txz"
	for name, ok := range map[string]bool{
		"method": verifyAzure(method, fields, 7), "path": verifyAzure(path, fields, 7), "length": verifyAzure(base(), fields, 8),
		"type": verifyAzure(base(), change("content-type", "text/html"), 7), "a field of its own": verifyAzure(base(), change("x-ms-blob-type", "PageBlob"), 7),
		"time": verifyAzure(base(), change("x-ms-date", testNow.Add(time.Minute).Format(httpTime)), 7), "content-md5": verifyAzure(base(), change("content-md5", "x"), 7),
	} {
		if ok {
			t.Errorf("with another %s the signature still holds", name)
		}
	}
}

// TestAzureRefused plans what can't be signed, and signs with what is no key.
func TestAzureRefused(t *testing.T) {
	s := newTestSigner(t, "azure-storage:account=myaccount")
	for _, target := range []string{"*", "/c?sv=1&sig=abc", "/c?%53ig=abc", "/c?a=b+c", "/c?a=%0Acomp:acl", "/c?a%0d=b", "/c?a:b=c", "/c?a=%zz"} {
		if p, err := s.Plan(&Request{Method: "GET", Host: azureHost, Target: target}); err == nil {
			t.Errorf("%s: %v", target, p)
		}
	}
	r := &Request{Method: "PUT", Host: azureHost, Target: "/c", Length: -1, Fields: protocol.Fields{{Name: "content-length", Value: "1"}}}
	if _, err := prove(s, azureKey, r); err == nil || !strings.Contains(err.Error(), "length") {
		t.Errorf("a length that nobody knows: %v", err)
	}
	r.Length = 1
	for _, value := range []string{"a", "*", ""} {
		if _, err := prove(s, value, r); err == nil || value != "" && strings.Contains(err.Error(), strconv.Quote(value)) {
			t.Errorf("key %q: %v", value, err)
		}
	}
	r.Fields = append(r.Fields, protocol.Field{Name: "content-type", Value: "a"}, protocol.Field{Name: "content-type", Value: "b"})
	if _, err := prove(s, azureKey, r); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("two types: %v", err)
	}
	for fields, want := range map[string]Demand{"content-length": DemandNothing, "x-ms-meta-a": DemandWhole} {
		if p, err := s.Plan(&Request{Method: "PUT", Host: azureHost, Target: "/c", Fields: protocol.Fields{{Name: fields, Value: "1"}}}); err != nil || p.Demand() != want {
			t.Errorf("with %s: %v, %v", fields, p, err)
		}
	}
}

// TestAzureOrder holds the order of names to be one: each pair the same both ways, and sorting stable under shuffling.
func TestAzureOrder(t *testing.T) {
	names := []string{"x-ms-a", "x-ms-a-", "x-ms--a", "x-msa", "x-ms-ab", "x-ms-a-b", "x-ms-a_b", "x-ms-a.b", "x-ms-a'b", "x-ms-a0", "x-ms-b"}
	for _, a := range names {
		for _, b := range names {
			if c := compareAzure(a, b); c != -compareAzure(b, a) || (c == 0) != (a == b) {
				t.Errorf("%s and %s: %d, %d", a, b, c, compareAzure(b, a))
			}
		}
	}
	sorted := slices.SortedFunc(slices.Values(names), compareAzure)
	slices.Reverse(names)
	if again := slices.SortedFunc(slices.Values(names), compareAzure); !slices.Equal(sorted, again) {
		t.Errorf("%q and %q", sorted, again)
	}
}

// FuzzAzure signs hostile requests: what comes out can be sent, and what is signed has as many lines as its parts.
func FuzzAzure(f *testing.F) {
	f.Add("/c?comp=list&a=%41", "x-ms-meta-a", "v", int64(3))
	f.Add("/?sig=x", "x-ms-date", "", int64(0))
	f.Add("/%0a?a=%0A", "content-type", "\t", int64(-1))
	f.Fuzz(func(t *testing.T, target, name, value string, length int64) {
		if !protocol.IsPath(target) || !protocol.IsToken(name) || name != strings.ToLower(name) || !protocol.IsFieldValue(value) {
			return
		}
		s := newTestSigner(t, "azure-storage:account=a").(*sharedKey)
		r := &Request{Method: "GET", Host: azureHost, Target: target, Fields: protocol.Fields{{Name: name, Value: value}}, Length: length}
		p, err := s.Plan(r)
		if err != nil {
			return
		}
		proof, err := p.Sign(secret.New([]byte(azureKey)), r, testNow)
		if err != nil {
			return
		}
		for name, value := range fieldsOf(proof) {
			if !protocol.IsToken(name) || !protocol.IsFieldValue(value) {
				t.Fatalf("field %q: %q", name, value)
			}
		}
		text, err := p.(*sharedKeyPlan).text(r, r.Fields)
		names := map[string]bool{}
		for _, q := range p.(*sharedKeyPlan).query {
			names[q.name] = true
		}
		own := 0
		if strings.HasPrefix(name, "x-ms-") {
			own = 1
		}
		if lines := strings.Count(string(text), "\n"); err != nil || lines != len(azureSigned)+1+own+len(names) {
			t.Fatalf("%d lines: %q, %v", lines, text, err)
		}
	})
}

// TestAzureService tells tables from the rest by the host.
func TestAzureService(t *testing.T) {
	for host, want := range map[string]string{
		"a.table.core.windows.net": "table", "a.blob.core.windows.net": "blob", "a.table.core.windows.net:8443": "table", "table.example.org": "blob", "[::1]:10000": "blob",
	} {
		if got := (control.Injector{}).StorageService(host); got != want {
			t.Errorf("%s is for %s", host, got)
		}
	}
}
