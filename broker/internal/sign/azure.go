package sign

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// A sharedKey signs by Shared Key of Azure Storage, in its version of 2015-02-21 and later for blobs, queues and files, and in its
// own form for tables. It binds method, path, query and most fields, the content's length and its declared MD5, but not the content.
type sharedKey struct{ in control.Injector }

// Fields of Azure Storage that are set.
const (
	azureDate    = "x-ms-date"
	azureVersion = "x-ms-version"
)

// defaultVersion is what requests ask for that name no version of the service; without one there is no Shared Key.
const defaultVersion = "2021-12-02"

func (*sharedKey) Strip(name string) bool {
	switch protocol.FoldName(name) {
	case "authorization", "proxy-authorization", "x-api-key", azureDate, "date":
		return true
	}
	return false
}

// A sharedKeyPlan is how one request is signed.
type sharedKeyPlan struct {
	*sharedKey
	query  []parameter // decoded, names in lower case, sorted
	demand Demand
}

// Plan refuses a request with a signature in its query, or one that services read in several ways.
func (s *sharedKey) Plan(r *Request) (Plan, error) {
	if !strings.HasPrefix(r.Target, "/") {
		return nil, fmt.Errorf("target %q has no path to sign", r.Target)
	}
	query, err := azureQuery(queryOf(r.Target))
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(query, func(p parameter) bool { return p.name == "sig" }) {
		return nil, errors.New("the request is signed in its query already")
	}
	p := &sharedKeyPlan{sharedKey: s, query: query}
	if r.Fields.Count("content-length") == 0 { // which is signed
		p.demand = DemandWhole
	}
	return p, nil
}

// azureQuery reads a query. Pairs without a name are left out.
func azureQuery(query string) ([]parameter, error) {
	var all []parameter
	for pair := range strings.SplitSeq(query, "&") {
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		if strings.Contains(pair, "+") {
			return nil, fmt.Errorf("query parameter %q holds a plus, which is not always a space; write %%20 or %%2B", pair)
		}
		name, err := unescape(name, false)
		if err == nil {
			value, err = unescape(value, false)
		}
		if err != nil {
			return nil, err
		}
		if strings.ContainsFunc(name+value, func(r rune) bool { return r < ' ' || r == 0x7f }) || strings.Contains(name, ":") {
			return nil, fmt.Errorf("query parameter %q holds what parts parameters where they are signed", pair)
		}
		all = append(all, parameter{strings.ToLower(name), value})
	}
	sortQuery(all)
	return all, nil
}

func (p *sharedKeyPlan) Demand() Demand { return p.demand }

// Sign makes the fields that sign the request.
func (p *sharedKeyPlan) Sign(value secret.Value, r *Request, now time.Time) (*Proof, error) {
	date := now.UTC().Format(httpTime)
	proof := &Proof{Fields: []Field{field(azureDate, date)}}
	fields := append(protocol.Fields{{Name: azureDate, Value: date}}, r.Fields...)
	if r.Fields.Count(azureVersion) == 0 {
		proof.Fields = append(proof.Fields, field(azureVersion, defaultVersion))
		fields = append(fields, protocol.Field{Name: azureVersion, Value: defaultVersion})
	}
	text, err := p.text(r, fields)
	if err != nil {
		return nil, err
	}
	err = value.Use(func(b []byte) error {
		key, err := control.ParseAccountKey(b)
		if err != nil {
			return err
		}
		defer secret.Wipe(key)
		m := hmac.New(sha256.New, key)
		m.Write(text)
		signature := base64.StdEncoding.EncodeToString(m.Sum(nil))
		proof.Fields = append(proof.Fields, field("authorization", "SharedKey "+p.in.Param(control.ParamAccount)+":"+signature))
		return nil
	})
	if err != nil {
		return nil, err
	}
	return proof, nil
}

// text returns what is signed of r, which goes out with the fields f.
func (p *sharedKeyPlan) text(r *Request, f protocol.Fields) ([]byte, error) {
	b := append(make([]byte, 0, 512), r.Method...)
	names := azureSigned
	if p.in.StorageService(r.Host) == control.ServiceTable {
		names = azureTable
	}
	for _, name := range names {
		b = append(b, '\n')
		if name == "content-length" {
			if r.Length < 0 {
				return nil, errors.New("the content's length is signed, and the request does not say it")
			}
			if r.Length > 0 {
				b = strconv.AppendInt(b, r.Length, 10)
			}
			continue
		}
		if f.Count(name) > 1 {
			return nil, fmt.Errorf("field %q stands twice", name)
		}
		b = append(b, strings.Trim(f.Get(name), " \t")...)
	}
	b = append(b, '\n')
	path, _, _ := strings.Cut(r.Target, "?")
	if len(names) == len(azureTable) {
		return p.appendTable(b, path), nil
	}
	for _, l := range azureFields(f) {
		b = append(append(append(append(b, l.Name...), ':'), l.Value...), '\n')
	}
	b = append(append(append(b, '/'), p.in.Param(control.ParamAccount)...), path...)
	for i, q := range p.query {
		if i > 0 && p.query[i-1].name == q.name {
			b = append(append(b, ','), q.value...)
			continue
		}
		b = append(append(append(append(b, '\n'), q.name...), ':'), q.value...)
	}
	return b, nil
}

// azureSigned are the fields whose values are signed in their order; Date is empty where there is x-ms-date.
var azureSigned = []string{
	"content-encoding", "content-language", "content-length", "content-md5", "content-type", "date", "if-modified-since", "if-match",
	"if-none-match", "if-unmodified-since", "range",
}

// azureTable are those that are signed for tables.
var azureTable = []string{"content-md5", "content-type", azureDate}

// appendTable appends the resource as tables have it.
func (p *sharedKeyPlan) appendTable(b []byte, path string) []byte {
	b = append(append(append(b, '/'), p.in.Param(control.ParamAccount)...), path...)
	for _, q := range p.query {
		if q.name == "comp" {
			b = append(append(b, "?comp="...), q.value...)
		}
	}
	return b
}

// azureFields returns one line for each name that begins with x-ms-, in the service's order.
func azureFields(f protocol.Fields) protocol.Fields {
	var lines protocol.Fields
	for _, l := range f {
		if strings.HasPrefix(l.Name, "x-ms-") {
			lines = append(lines, protocol.Field{Name: l.Name, Value: strings.Trim(l.Value, " \t")})
		}
	}
	slices.SortStableFunc(lines, func(a, b protocol.Field) int { return compareAzure(a.Name, b.Name) })
	joined := lines[:0]
	for _, l := range lines {
		if n := len(joined); n > 0 && joined[n-1].Name == l.Name {
			joined[n-1].Value += "," + l.Value
			continue
		}
		joined = append(joined, l)
	}
	return joined
}

// azureOrder are the bytes of a field's name in the order in which the service sorts them, which is that of words in a dictionary:
// hyphens and apostrophes count only where names are otherwise the same.
const azureOrder = "!#$%&*.^_`|~+0123456789abcdefghijklmnopqrstuvwxyz"

func compareAzure(a, b string) int {
	i, j := 0, 0
	for {
		for i < len(a) && (a[i] == '-' || a[i] == '\'') {
			i++
		}
		for j < len(b) && (b[j] == '-' || b[j] == '\'') {
			j++
		}
		if i == len(a) || j == len(b) {
			break
		}
		if c := cmp.Compare(strings.IndexByte(azureOrder, a[i]), strings.IndexByte(azureOrder, b[j])); c != 0 {
			return c
		}
		i, j = i+1, j+1
	}
	if i < len(a) || j < len(b) {
		return cmp.Compare(len(a)-i, len(b)-j)
	}
	for i := range min(len(a), len(b)) {
		if c := cmp.Compare(strings.IndexByte("'-", a[i]), strings.IndexByte("'-", b[i])); c != 0 {
			return c
		}
	}
	return cmp.Compare(len(a), len(b))
}
