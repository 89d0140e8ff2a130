package broker

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	ctlserver "torno.internal/broker/internal/control"
	"torno.internal/protocol/control"
)

const controlPage = "../docs/control-api.md"

// generatedMark is the line below which the page is made of the code.
const generatedMark = "<!-- What follows is made from protocol/control by TORNO_UPDATE=1 go test -run TestControlPage ./broker -->\n"

// TestControlRoutes holds the table of requests to what the broker answers.
func TestControlRoutes(t *testing.T) {
	d := newDesk(t, nil)
	served := d.broker.router().Patterns
	var listed []string
	for _, r := range control.Routes {
		listed = append(listed, r.Method+" "+r.Path)
	}
	for _, p := range served {
		if !slices.Contains(listed, p) {
			t.Errorf("%s is answered, and not in control.Routes", p)
		}
	}
	for _, p := range listed {
		if !slices.Contains(served, p) {
			t.Errorf("%s is in control.Routes, and not answered", p)
		}
	}
	for _, path := range []string{"/v1/nonsense", "/", "/v2/health"} {
		if err := d.call("GET", path, nil, nil); err == nil || err.(*control.Error).Code != control.CodeNotFound {
			t.Errorf("%s: %v", path, err)
		}
	}
	if err := d.call("PATCH", control.PathHealth, nil, nil); err == nil || err.(*control.Error).Code != control.CodeNotFound {
		t.Errorf("another method: %v", err)
	}
}

// TestControlPage holds the page about the API to the code: every request, type, member and error code.
func TestControlPage(t *testing.T) {
	b, err := os.ReadFile(controlPage)
	if err != nil {
		t.Fatal(err)
	}
	intro, rest, found := strings.Cut(string(b), generatedMark)
	if !found {
		t.Fatalf("%s lacks the line %q", controlPage, generatedMark)
	}
	want := newPage(t).generate()
	if os.Getenv("TORNO_UPDATE") != "" {
		if err := os.WriteFile(controlPage, []byte(intro+generatedMark+want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if rest != want {
		t.Errorf("%s is not what the code says: TORNO_UPDATE=1 go test -run TestControlPage ./broker", controlPage)
	}
}

// A page explains types by the comments of their source.
type page struct {
	strings.Builder
	t        *testing.T
	types    map[string]*ast.TypeSpec // by package and name
	comments map[string]string        // of types, by the same
	codes    [][2]string              // of errors: value and comment
	values   map[string][]string      // of string types: their constants' values and comments
	queue    []reflect.Type           // still to be explained
	seen     map[reflect.Type]bool
}

func newPage(t *testing.T) *page {
	p := &page{t: t, types: map[string]*ast.TypeSpec{}, comments: map[string]string{}, values: map[string][]string{}, seen: map[reflect.Type]bool{}}
	for _, dir := range []string{"../protocol/control", "../protocol"} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if !strings.HasSuffix(file, "_test.go") {
				p.read(filepath.Base(dir), file)
			}
		}
	}
	return p
}

// read takes up the declarations of one file.
func (p *page) read(pkg, file string) {
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
	if err != nil {
		p.t.Fatal(err)
	}
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, s := range g.Specs {
			switch s := s.(type) {
			case *ast.TypeSpec:
				p.types[pkg+"."+s.Name.Name] = s
				p.comments[pkg+"."+s.Name.Name] = oneLine(g.Doc.Text())
			case *ast.ValueSpec:
				p.readValue(pkg, s)
			}
		}
	}
}

func (p *page) readValue(pkg string, s *ast.ValueSpec) {
	if len(s.Values) != 1 {
		return
	}
	lit, ok := s.Values[0].(*ast.BasicLit)
	if !ok {
		return
	}
	value, comment := strings.Trim(lit.Value, `"`), oneLine(s.Comment.Text())
	if pkg == "control" && strings.HasPrefix(s.Names[0].Name, "Code") {
		p.codes = append(p.codes, [2]string{value, comment})
	}
	if typ, ok := s.Type.(*ast.Ident); ok {
		text := fmt.Sprintf("`%q`", value)
		if comment != "" {
			text += " (" + comment + ")"
		}
		p.values[pkg+"."+typ.Name] = append(p.values[pkg+"."+typ.Name], text)
	}
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// generate returns the page's second part.
func (p *page) generate() string {
	p.WriteString("\n## Errors\n\nThe codes are stable; messages and hints are for people.\n\n| code | status | |\n|---|---|---|\n")
	for _, c := range p.codes {
		if c[1] == "" {
			p.t.Errorf("code %q has no comment", c[0])
		}
		fmt.Fprintf(p, "| `%s` | %d | %s |\n", c[0], ctlserver.Status(c[0]), c[1])
	}
	p.WriteString("\n## Requests\n")
	for _, r := range control.Routes {
		p.route(&r)
	}
	p.WriteString("\n## Types\n\nMembers marked with ? may be absent. Byte strings are base64. Times are RFC 3339.\n")
	p.name(reflect.TypeFor[control.Error]())
	begun := p.String()
	explained := map[string]string{}
	for ; len(p.queue) > 0; p.queue = p.queue[1:] { // explaining one may add others
		p.Reset()
		p.explain(p.queue[0])
		explained[p.queue[0].Name()] = p.String()
	}
	for _, name := range slices.Sorted(maps.Keys(explained)) {
		begun += explained[name]
	}
	return begun
}

func (p *page) route(r *control.Route) {
	fmt.Fprintf(p, "\n### `%s %s`\n\n%s\n", r.Method, r.Path, r.Does)
	if len(r.Query) > 0 {
		fmt.Fprintf(p, "\n- query: `%s`", strings.Join(r.Query, "`, `"))
	}
	if r.In != nil {
		fmt.Fprintf(p, "\n- body: %s", p.name(reflect.TypeOf(r.In)))
	}
	switch {
	case r.Out == nil:
		p.WriteString("\n- answer: bytes\n")
	case r.Lines:
		fmt.Fprintf(p, "\n- answer: %s, one a line\n", p.name(reflect.TypeOf(r.Out)))
	default:
		fmt.Fprintf(p, "\n- answer: %s\n", p.name(reflect.TypeOf(r.Out)))
	}
}

// name names a type as JSON has it, and has it explained if that is one of ours.
func (p *page) name(t reflect.Type) string {
	switch {
	case t.Kind() == reflect.Pointer:
		return p.name(t.Elem())
	case t.String() == "time.Time":
		return "time"
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8:
		return "bytes"
	case t.Kind() == reflect.Slice:
		return "array of " + p.name(t.Elem())
	case t.Kind() == reflect.Map:
		return "object of " + p.name(t.Elem()) + " by name"
	case t.Kind() == reflect.Struct || p.values[t.String()] != nil:
		if !p.seen[t] {
			p.seen[t] = true
			p.queue = append(p.queue, t)
		}
		return fmt.Sprintf("[%s](#%s)", t.Name(), strings.ToLower(t.Name()))
	case t.Kind() == reflect.Bool:
		return "boolean"
	case t.Kind() == reflect.String:
		return "string"
	case t.Kind() == reflect.Interface || t.String() == "json.RawMessage":
		return "any"
	}
	return "number"
}

func (p *page) explain(t reflect.Type) {
	fmt.Fprintf(p, "\n### %s\n\n%s\n", t.Name(), p.comments[t.String()])
	if t.Kind() != reflect.Struct {
		fmt.Fprintf(p, "\nOne of %s.\n", strings.Join(p.values[t.String()], ", "))
		return
	}
	if t.NumField() == 0 {
		return
	}
	p.WriteString("\n| member | type | |\n|---|---|---|\n")
	p.members(t)
}

// members writes a row for each member of a struct, those of embedded structs among them.
func (p *page) members(t reflect.Type) {
	comments := map[string]string{}
	if spec := p.types[t.String()]; spec != nil {
		for _, f := range spec.Type.(*ast.StructType).Fields.List {
			for _, n := range f.Names {
				comments[n.Name] = oneLine(cmp.Or(f.Comment.Text(), f.Doc.Text()))
			}
		}
	}
	for f := range t.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			p.members(f.Type)
			continue
		case name == "-" || !f.IsExported():
			continue
		case strings.Contains(options, "omitempty"):
			name += "?"
		}
		fmt.Fprintf(p, "| `%s` | %s | %s |\n", name, p.name(f.Type), strings.ReplaceAll(comments[f.Name], "|", "\\|"))
	}
}
