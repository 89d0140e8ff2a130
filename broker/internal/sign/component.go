package sign

import (
	"fmt"
	"strings"

	"torno.internal/protocol"
)

// A component is a part of a request that a message signature covers (RFC 9421 §2). Only @query-param has a parameter.
type component struct{ name, param string }

// parseComponents reads a list as control.CheckMeta has passed it: "@method @path content-type @query-param;name=id".
func parseComponents(list string) []component {
	var all []component
	for _, word := range strings.Fields(list) {
		name, param, _ := strings.Cut(word, ";name=")
		all = append(all, component{strings.ToLower(name), param})
	}
	return all
}

func (c component) appendTo(b []byte) []byte {
	b = append(b, '"')
	b = append(b, c.name...)
	b = append(b, '"')
	if c.param != "" {
		b = append(b, `;name="`+c.param+`"`...)
	}
	return b
}

// appendCovered appends the list of what is covered.
func appendCovered(b []byte, covered []component) []byte {
	b = append(b, '(')
	for i, c := range covered {
		if i > 0 {
			b = append(b, ' ')
		}
		b = c.appendTo(b)
	}
	return append(b, ')')
}

// signatureBase returns the text that is signed (RFC 9421 §2.5).
func signatureBase(r *Request, f protocol.Fields, covered []component, params string) (string, error) {
	b := make([]byte, 0, 512)
	for _, c := range covered {
		value, err := c.value(r, f)
		if err != nil {
			return "", err
		}
		b = c.appendTo(b)
		b = append(b, ": "...)
		b = append(b, value...)
		b = append(b, '\n')
	}
	return string(append(b, `"@signature-params": `+params...)), nil
}

// value returns the component's value in r, whose fields are f.
func (c component) value(r *Request, f protocol.Fields) (string, error) {
	path, query, _ := strings.Cut(r.Target, "?")
	switch c.name {
	case "@method":
		return r.Method, nil
	case "@authority":
		return strings.ToLower(r.Host), nil
	case "@scheme":
		return "https", nil
	case "@target-uri":
		return "https://" + strings.ToLower(r.Host) + r.Target, nil
	case "@request-target":
		return r.Target, nil
	case "@path":
		return path, nil
	case "@query":
		return "?" + query, nil
	case "@query-param":
		return c.parameter(query)
	}
	return c.field(f)
}

// parameter returns the value of the one parameter of that name (RFC 9421 §2.2.8).
func (c component) parameter(query string) (string, error) {
	all, err := parseQuery(query)
	if err != nil {
		return "", err
	}
	found := 0
	value := ""
	for _, p := range all {
		if p.name == c.param {
			found++
			value = p.value
		}
	}
	if found != 1 {
		return "", fmt.Errorf("%d query parameters %q, where one is signed", found, c.param)
	}
	return value, nil
}

// field returns the value of all lines of one field (RFC 9421 §2.1).
func (c component) field(f protocol.Fields) (string, error) {
	var values []string
	for _, l := range f {
		if l.Name == c.name {
			values = append(values, strings.Trim(l.Value, " \t"))
		}
	}
	if len(values) == 0 {
		return "", fmt.Errorf("no field %q, which is to be signed", c.name)
	}
	return strings.Join(values, ", "), nil
}
